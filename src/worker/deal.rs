//! Which worker polls which queue. Owns the dealing; starts nothing.
//!
//! Invariant: each queue has one worker, one of its port's cores if the port names some, and no worker is without a queue.

/// What one port wants.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Its queues.
    pub queues: u16,
    /// The cores that may poll them; any if there are none.
    pub cores: &'a [usize],
}

/// Queues and their workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dealt {
    /// The core of each worker that has a queue.
    pub cores: Vec<usize>,
    /// The worker of each queue, by its index in `cores`; queues are numbered over all ports.
    pub workers: Vec<usize>,
}

impl Dealt {
    /// Queues of the worker that has the most.
    #[must_use]
    pub fn queues_max(&self) -> usize {
        (0..self.cores.len()).map(|worker| self.queues_of(worker).count()).max().unwrap_or(0)
    }

    /// The queues of a worker.
    pub fn queues_of(&self, worker: usize) -> impl Iterator<Item = usize> {
        self.workers.iter().enumerate().filter(move |(_, of)| **of == worker).map(|(queue, _)| queue)
    }
}

/// Deals the queues of all ports over these cores: those of ports that name cores first, then the others, each to the core that has the
/// fewest. A core that a port names and that is not among `cores` is passed over. Without a core nothing is dealt.
#[must_use]
pub fn deal(wishes: &[Wish<'_>], cores: &[usize]) -> Dealt {
    if cores.is_empty() {
        return Dealt::default();
    }
    let mut counts = vec![0_usize; cores.len()];
    let mut dealt: Vec<Vec<usize>> = wishes.iter().map(|_| Vec::new()).collect();
    for are_bound in [true, false] {
        for (wish, dealt) in
            wishes.iter().zip(&mut dealt).filter(|(wish, _)| wish.cores.is_empty() != are_bound)
        {
            let may = |at: &usize| wish.cores.is_empty() || wish.cores.contains(&cores[*at]);
            for _ in 0..wish.queues {
                let fewest = (0..cores.len()).filter(may).min_by_key(|at| counts[*at]).unwrap_or(0);
                counts[fewest] += 1;
                dealt.push(fewest);
            }
        }
    }
    let used: Vec<usize> = (0..cores.len()).filter(|at| counts[*at] > 0).collect();
    let worker = |at: &usize| used.iter().position(|used| used == at).unwrap_or(0);
    let workers = dealt.iter().flatten().map(worker).collect();
    Dealt { cores: used.iter().map(|at| cores[*at]).collect(), workers }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dealt(wishes: &[(u16, &[usize])], cores: &[usize]) -> (Vec<usize>, Vec<usize>) {
        let wishes: Vec<_> = wishes.iter().map(|&(queues, cores)| Wish { queues, cores }).collect();
        let dealt = deal(&wishes, cores);
        (dealt.cores, dealt.workers)
    }

    #[test]
    fn queues_go_round_over_the_cores_where_no_port_names_any() {
        assert_eq!(dealt(&[(3, &[]), (2, &[])], &[4, 5]), (vec![4, 5], vec![0, 1, 0, 1, 0]));
        assert_eq!(
            dealt(&[(1, &[])], &[4, 5, 6]),
            (vec![4], vec![0]),
            "the others would have nothing to poll"
        );
    }

    #[test]
    fn a_port_keeps_to_its_cores_and_others_fill_up() {
        let (cores, workers) = dealt(&[(2, &[]), (2, &[6, 7]), (1, &[7])], &[4, 5, 6, 7]);
        assert_eq!(cores, [4, 5, 6, 7]);
        assert_eq!(workers, [0, 1, 2, 3, 3]);
    }

    #[test]
    fn no_worker_is_without_a_queue_wherever_the_unused_core_stands() {
        assert_eq!(dealt(&[(2, &[6])], &[4, 5, 6]), (vec![6], vec![0, 0]));
        assert_eq!(deal(&[], &[1]), Dealt::default());
        assert_eq!(deal(&[Wish { queues: 2, cores: &[] }], &[]), Dealt::default(), "nothing runs");
    }

    #[test]
    fn the_most_queues_of_one_worker_are_known() {
        let wishes = [Wish { queues: 3, cores: &[6] }, Wish { queues: 1, cores: &[] }];
        let dealt = deal(&wishes, &[5, 6]);
        assert_eq!((dealt.queues_max(), dealt.queues_of(0).count()), (3, 1));
    }
}
