"""Shipping: one plain model with everything that belongs to it, compared with what was trained."""
