"""Whether a run learns, and what keeps it from learning: looked for while there is time to do something.

``found`` says what a network finds in some training images, against chance; ``evidence`` what these images
and labels show by themselves; ``curve`` what loss and rate say; ``judge`` draws the conclusions, and
``check`` makes a check of a run of them (``jdet.train.checks``).
"""
