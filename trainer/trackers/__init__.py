"""Where people watch runs side by side: TensorBoard, Weights & Biases."""
