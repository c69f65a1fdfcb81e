"""Pure metric functions on plain data: COCO dictionaries, detection lists and NumPy arrays.

Nothing here imports torch. The classes that gather data batch by batch lie in `metrics.accumulators`.
"""
