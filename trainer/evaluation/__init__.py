"""How good an encoder is on drawings of a style it was never trained on."""
