"""Text for the terminal."""

from segtrain.text import notice, say, table


def test_control_characters_are_escaped_where_lines_are_printed(capsys):
    say("a\x1b[31mb", "two\nlines", "tab\there")
    notice("c\r\x9bd")
    captured = capsys.readouterr()
    assert captured.out == "a\\x1b[31mb\ntwo\\nlines\ntab\\there\n"
    assert captured.err == "segtrain: c\\r\\x9bd\n"


def test_columns_of_a_table_fit_escaped_cells():
    assert table(("class", "iou"), [("a\nb", "1"), ("Straße", "0.5")]) == [
        "class   iou",
        "a\\nb      1",
        "Straße  0.5",
    ]
