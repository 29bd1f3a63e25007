"""Pure functions on arrays: boxes, default boxes, coding, matching, sampling, NMS, losses."""
