"""What a training from scratch will come to: the final AP from its first part, and images for a target.

``recorded`` holds curves of real runs, ``forecast`` extrapolates one more by them, ``images`` fits AP over
the number of images. The command is ``python -m jdet.analysis.price``.
"""
