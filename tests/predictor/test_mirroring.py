"""Classes that are told apart by left and right are named where images are mirrored."""

import pytest

from segtrain.predictor.mirroring import pairs_by_side, warn_of_mirroring

KIDNEYS = ("background", "left kidney", "liver", "kidney", "Right_Kidney", "right kidney")


def test_pairs_differ_in_a_word_for_a_side_alone():
    assert pairs_by_side(KIDNEYS) == [("left kidney", "right kidney")]
    names = (
        "l_eye",
        "r_eye",
        "earLeft",
        "earRight",
        "left turn",
        "upright",
        "leftover",
        "r",
        "left",
        "right_2",
    )
    assert pairs_by_side(names) == [("l_eye", "r_eye"), ("earLeft", "earRight")]


@pytest.mark.parametrize(
    ("augmentation", "tta", "remedies"),
    [
        ({"warp": {"flip": 0.5}, "colour": {}}, {}, "augmentation.warp.flip=0"),
        (
            {"warp": {"flip": 0.0}, "pixel": {"transforms": {"D4": {}, "GaussNoise": {}}}},
            {"flip": {"axes": ["horizontal"]}},
            "augmentation.pixel.transforms.D4.p=0 tta.flip=null",
        ),
        ({"warp": None, "pixel": {"transforms": None}}, {"flip": {"axes": ["vertical"]}, "rotate": {}}, None),
        ({}, {"flip": None}, None),
    ],
)
def test_what_mirrors_is_named_with_the_way_out(capsys, augmentation, tta, remedies):
    warn_of_mirroring(("liver",), augmentation, tta)
    assert capsys.readouterr().err == ""
    warn_of_mirroring(KIDNEYS, augmentation, tta)
    error = capsys.readouterr().err
    if remedies is None:
        assert error == ""
    else:
        assert "the classes 'left kidney' and 'right kidney' differ by side" in error
        assert error.endswith(f"set {remedies}\n")
