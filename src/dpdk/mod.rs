//! DPDK behind safe types. Owns every call into it; nothing else names `sys`.
