"""ONNX files as input: torchvision's models as three exporters write them, and files that others made."""
