"""Training recipes of the evaluators that ship with the project.

``python -m instbench.evaluators.training detector|image-text|features --data DIR... -o DIR`` trains one
network on COCO-format folders of Shapes scenes; ``... measure FOLDER --data DIR`` measures it. Every
recipe is deterministic from its seed, logs to ``log.jsonl`` and continues where it was stopped.
"""
