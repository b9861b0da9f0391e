"""Figures: one script each, run by `make bench`. Each prints JSON lines; the table is made of them."""
