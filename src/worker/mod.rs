//! The poll loop of one core. Owns what happens to a frame between the burst and the block.
