"""Recipes that train the parts of a small InstanceDiffusion pipeline from a COCO-format folder.

Run as ``python -m reference_model.training <part>``; parts are listed by ``--help``.
"""
