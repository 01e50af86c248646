//! Progress as events, and what draws them: bars on a terminal, plain lines without one.
