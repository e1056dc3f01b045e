"""Which parameter goes to which rule."""
