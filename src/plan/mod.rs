//! Pure planning: cluster + inventory → steps, and their description. No I/O, no clock, no randomness.
