"""The fifteen image corruptions, as functions of float64 images, a severity and a key an image."""
