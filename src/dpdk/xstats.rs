//! A driver's extended counters. Owns their reading, and the sum of those that are lost frames; not what is told of them.
//!
//! Invariant: no counter is read under another one's name.
#![allow(unsafe_code)]

use std::{ffi::CStr, mem::MaybeUninit};

use super::{port::StartedPort, sys};
use crate::drivers::Driver;

/// The extended counters of a port that are lost frames.
#[derive(Debug)]
pub(super) struct Xstats {
    driver: &'static Driver,
    ids: Vec<u64>,
    /// Of how many counters: some drivers have more of them later.
    count: u32,
}

impl Xstats {
    /// Nothing is read yet.
    pub fn new(driver: &'static Driver) -> Self {
        Self { driver, ids: Vec::new(), count: 0 }
    }

    /// Finds them by name.
    fn find(&mut self, port: u16, count: u32) {
        let is_loss = |(_, name): &(u64, String)| self.driver.losses.is_loss(name);
        self.ids = names(port).into_iter().filter(is_loss).map(|(id, _)| id).collect();
        self.count = count;
    }

    /// The sum of them now. The caller holds the control lock.
    pub fn losses(&mut self, port: u16) -> u64 {
        if self.driver.losses.xstats.is_empty() {
            return 0;
        }
        let count = count(port);
        if count != self.count {
            self.find(port, count);
        }
        let is_loss = |(id, _): &(u64, u64)| self.ids.contains(id);
        values(port).into_iter().filter(is_loss).fold(0, |sum, (_, value)| sum.saturating_add(value))
    }
}

fn count(port: u16) -> u32 {
    // SAFETY: with no array the callee returns how many there are.
    u32::try_from(unsafe { sys::rte_eth_xstats_get_names(port, std::ptr::null_mut(), 0) }).unwrap_or(0)
}

/// How many elements of an array a call wrote, which says a larger number if there were more.
fn filled(returned: i32, count: u32) -> usize {
    usize::try_from(returned).unwrap_or(0).min(count as usize)
}

fn names(port: u16) -> Vec<(u64, String)> {
    let count = count(port);
    // SAFETY: a structure of bytes, for which zero is a value.
    let name = unsafe { MaybeUninit::<sys::rte_eth_xstat_name>::zeroed().assume_init() };
    let mut names = vec![name; count as usize];
    // SAFETY: the array has `count` elements, and the callee writes no more.
    let named = unsafe { sys::rte_eth_xstats_get_names(port, names.as_mut_ptr(), count) };
    // SAFETY: DPDK terminates each name within its array.
    let text = |name: &sys::rte_eth_xstat_name| unsafe { CStr::from_ptr(name.name.as_ptr()) };
    let text = |name: &sys::rte_eth_xstat_name| text(name).to_string_lossy().into_owned();
    (0..).zip(names[..filled(named, count)].iter().map(text)).collect()
}

fn values(port: u16) -> Vec<(u64, u64)> {
    let count = count(port);
    // SAFETY: a structure of integers, for which zero is a value.
    let value = unsafe { MaybeUninit::<sys::rte_eth_xstat>::zeroed().assume_init() };
    let mut values = vec![value; count as usize];
    // SAFETY: the array has `count` elements, and the callee writes no more.
    let valued = unsafe { sys::rte_eth_xstats_get(port, values.as_mut_ptr(), count) };
    values[..filled(valued, count)].iter().map(|stat| (stat.id, stat.value)).collect()
}

impl StartedPort {
    /// All counters that the driver has, by its own names; not relative to the start.
    pub fn xstats(&self) -> Vec<(String, u64)> {
        let _control = self.control();
        let names = names(self.id());
        let named = |(id, value): (u64, u64)| {
            let (_, name) = names.get(usize::try_from(id).ok()?)?;
            Some((name.clone(), value))
        };
        values(self.id()).into_iter().filter_map(named).collect()
    }
}
