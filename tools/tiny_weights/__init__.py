"""Tiny networks in TotalSegmentator's layout, trained on computed phantoms: the tests' weights.

They are for tests only, never for clinical or research use. `phantom` makes the images, `train` the networks, `layout`
writes them down, trained or random.
"""
