"""The problem of several components: what gradient, spectral and sign descent learn when, in closed form."""
