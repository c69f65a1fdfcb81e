"""Generators: adapters that make images from layouts."""
