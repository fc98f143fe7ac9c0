"""The shipped despeckler: its examples, target, augmentation and training, apart from how a trained one is used."""
