"""What an evaluation says beyond its metrics: ``python -m jdet.analyse RUN`` and ``analysis.json``.

Not to be confused with ``jdet.analysis``, which looks at training: gradients, loss landscapes, anchors.
"""
