"""Coverage: every model of torchvision and a set from transformers, cut to half of its MACs and proven."""
