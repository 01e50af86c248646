//! `km host`: the side that runs on a control-plane host. It compares, writes atomically, restarts what changed,
//! checks health and reports events; `kmctl` sends it one stream.
