//! A worker's empty blocks, and how many each account has taken of them. Owns who may take the next one.
//!
//! Each stream is entitled to the block that it fills. Of the blocks beyond those, half are for the account that comes
//! first, and the other half are dealt evenly over all accounts of this host, whether they capture now or not: a capture
//! that begins has no time to wait for them. So an account that captures more than the disk can write runs out of blocks,
//! and the others do not. With one account, all are its own. The host's own streams (the history) are entitled to the
//! blocks that they fill.
//!
//! Invariant: while no stream begins or ends, an account finds a block as long as it has fewer than it is entitled to.

use crate::block::{Block, Payer};

/// What one account has on this worker.
#[derive(Debug)]
struct Account {
    payer: Payer,
    streams: usize,
    used: usize,
}

impl Account {
    /// Blocks that it may still take whatever the others do, if each account has so many beside those of its streams.
    fn owed(&self, part: usize) -> usize {
        let part = if self.payer == Payer::HOST { 0 } else { part };
        (self.streams + part).saturating_sub(self.used)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Blocks {
    free: Vec<Block>,
    total: usize,
    /// Accounts of this host.
    count: usize,
    /// Those that have a stream or a block.
    accounts: Vec<Account>,
    /// Blocks of each account beside those of its streams.
    part: usize,
}

impl Blocks {
    /// All of a worker's blocks, on a host of so many accounts and for at most so many streams.
    pub fn new(free: Vec<Block>, count: usize, streams_max: usize) -> Self {
        let total = free.len();
        Self { free, total, count, accounts: Vec::with_capacity(streams_max + total), part: 0 }
    }

    /// How many there are.
    pub fn total(&self) -> usize {
        self.total
    }

    /// How many are empty.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    fn account(&mut self, payer: Payer) -> &mut Account {
        let at = self.accounts.iter().position(|account| account.payer == payer).unwrap_or_else(|| {
            self.accounts.push(Account { payer, streams: 0, used: 0 });
            self.accounts.len() - 1
        });
        &mut self.accounts[at]
    }

    /// The host has so many accounts from now on.
    pub fn set_accounts(&mut self, count: usize) {
        if count != self.count {
            self.count = count;
            self.deal();
        }
    }

    /// An account has one stream more.
    pub fn begin(&mut self, payer: Payer) {
        self.account(payer).streams += 1;
        self.deal();
    }

    /// An account has one stream less. What the stream had handed over is the account's until it comes back.
    pub fn end(&mut self, payer: Payer) {
        let account = self.account(payer);
        account.streams = account.streams.saturating_sub(1);
        self.accounts.retain(|account| account.streams + account.used > 0);
        self.deal();
    }

    fn deal(&mut self) {
        let streams: usize = self.accounts.iter().map(|account| account.streams).sum();
        self.part = self.total.saturating_sub(streams) / (2 * self.count.max(1));
    }

    /// How many blocks an account can take now.
    pub fn available(&self, payer: Payer) -> usize {
        let (mut own, mut others, mut absent) = (0, 0, self.count);
        for account in &self.accounts {
            absent = absent.saturating_sub(usize::from(account.payer != Payer::HOST));
            let owed = account.owed(self.part);
            if account.payer == payer {
                own = owed;
            } else {
                others += owed;
            }
        }
        others += absent * self.part;
        own.min(self.free.len()).max(self.free.len().saturating_sub(others))
    }

    /// Takes a block for an account, if there is one that it may take.
    pub fn take(&mut self, payer: Payer) -> Option<Block> {
        if self.available(payer) == 0 {
            return None;
        }
        let mut block = self.free.pop()?;
        block.set_payer(payer);
        self.account(payer).used += 1;
        Some(block)
    }

    /// Takes an empty block back.
    pub fn give_back(&mut self, block: Block) {
        let payer = block.payer();
        if let Some(at) = self.accounts.iter().position(|account| account.payer == payer) {
            let account = &mut self.accounts[at];
            account.used = account.used.saturating_sub(1);
            if account.streams + account.used == 0 {
                self.accounts.swap_remove(at);
            }
        }
        self.free.push(block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Arena, Hugepages};
    use proptest::prelude::*;

    fn blocks(free: usize, accounts: usize) -> Blocks {
        Blocks::new(Arena::map(free, Hugepages::Never).unwrap().0, accounts, 64)
    }

    fn taken(blocks: &mut Blocks, payer: Payer) -> Vec<Block> {
        std::iter::from_fn(|| blocks.take(payer)).collect()
    }

    #[test]
    fn the_only_account_has_all_blocks_but_those_that_the_history_fills() {
        let (mut blocks, one) = (blocks(8, 1), Payer::account(0));
        blocks.begin(one);
        assert_eq!(blocks.available(one), 8);
        blocks.begin(Payer::HOST);
        assert_eq!((blocks.available(one), blocks.available(Payer::HOST)), (7, 8 - 1 - 3));
        assert_eq!(taken(&mut blocks, one).len(), 7);
        assert_eq!(taken(&mut blocks, Payer::HOST).len(), 1);
    }

    #[test]
    fn an_account_that_takes_all_it_can_leaves_the_other_its_part() {
        let (greedy, modest) = (Payer::account(0), Payer::account(1));
        let mut blocks = blocks(64, 2);
        blocks.begin(greedy);
        blocks.begin(greedy);
        // Of 62 beside the blocks of its streams, 15 are kept for the account that does not capture yet.
        let mut held = taken(&mut blocks, greedy);
        assert_eq!(held.len(), 49);
        blocks.begin(modest);
        let modest_held = taken(&mut blocks, modest);
        assert_eq!((blocks.available(greedy), modest_held.len()), (0, 15));
        // One more, for its stream, is the first that comes back.
        blocks.give_back(held.pop().unwrap());
        assert_eq!((blocks.available(greedy), blocks.available(modest)), (0, 1));
        blocks.give_back(held.pop().unwrap());
        assert_eq!((blocks.available(greedy), blocks.available(modest)), (1, 2));
    }

    #[test]
    fn what_an_account_handed_over_is_its_own_until_it_comes_back() {
        let (gone, one) = (Payer::account(0), Payer::account(1));
        let mut blocks = blocks(16, 2);
        blocks.begin(gone);
        let held = taken(&mut blocks, gone);
        assert_eq!(held.len(), 13);
        blocks.end(gone);
        blocks.begin(one);
        assert_eq!((blocks.available(one), blocks.accounts.len()), (3, 2));
        held.into_iter().for_each(|block| blocks.give_back(block));
        assert_eq!((blocks.available(one), blocks.accounts.len()), (13, 1));
    }

    #[test]
    fn as_many_streams_as_there_are_blocks_for_each_find_one_and_share_what_is_left() {
        let mut blocks = blocks(8, 2);
        let payers: Vec<_> = (0..6).map(|n| Payer::account(n % 2)).collect();
        payers.iter().for_each(|&payer| blocks.begin(payer));
        let held: Vec<_> = payers.iter().map(|&payer| blocks.take(payer)).collect();
        assert!(held.iter().all(Option::is_some));
        assert_eq!((blocks.available(payers[0]), blocks.available(payers[1])), (2, 2));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 300 }))]

        /// Whatever is taken and given back in whatever order: who has less than its due finds a block, and none is lost.
        #[test]
        fn an_account_below_its_due_always_finds_a_block(
            count in 8_usize..24,
            accounts in 1_usize..6,
            streams in prop::collection::vec(0_usize..6, 1..8),
            operations in prop::collection::vec((0_usize..8, any::<bool>()), 1..300),
        ) {
            let mut blocks = blocks(count, accounts);
            let payer_of = |n: usize| if n == 0 { Payer::HOST } else { Payer::account(n % accounts) };
            let payers: Vec<_> = streams.into_iter().map(payer_of).collect();
            payers.iter().for_each(|&payer| blocks.begin(payer));
            let part = (count - payers.len()) / (2 * accounts);
            let mut held: Vec<Vec<Block>> = payers.iter().map(|_| Vec::new()).collect();
            for (who, is_take) in operations {
                let who = who % payers.len();
                if !is_take {
                    if let Some(block) = held[who].pop() {
                        blocks.give_back(block);
                    }
                    continue;
                }
                let payer = payers[who];
                let own = |(other, _): &(&Payer, &Vec<Block>)| **other == payer;
                let used: usize = payers.iter().zip(&held).filter(own).map(|(_, held)| held.len()).sum();
                let due = payers.iter().filter(|&&other| other == payer).count();
                let due = due + if payer == Payer::HOST { 0 } else { part };
                let block = blocks.take(payer);
                prop_assert!(block.is_some() || used >= due, "{used} of {due}");
                held[who].extend(block);
            }
            prop_assert_eq!(blocks.free() + held.iter().map(Vec::len).sum::<usize>(), count);
        }
    }
}
