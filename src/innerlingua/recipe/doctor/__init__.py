"""`innerlingua doctor`: what can be known of a recipe before its first step, without training and without a trace.

`examine.py` makes the report; it imports torch, so it is imported by its own name and late. `report.py` is what a
report is, `render.py` how it reads in a terminal; both import no torch.
"""
