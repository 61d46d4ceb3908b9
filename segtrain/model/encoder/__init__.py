"""Encoders: networks of timm and VGG16, their pretrained weights, and the features taken from them."""
