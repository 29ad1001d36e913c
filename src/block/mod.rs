//! Aligned blocks of memory and their way between threads.
