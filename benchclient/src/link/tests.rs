//! A connection against servers that behave, stall, stop in the middle and say strange things.
