/* What Rust sees of DPDK: its own small types, and the few functions of DPDK that build.rs lists. Owns every place where
 * releases of DPDK differ, and everything that is inline there; the hot path crosses here once a burst.
 *
 * Invariant: lengths in a trawl_frame never exceed the memory behind its pointer, whatever the driver wrote. */
#ifndef TRAWL_SHIM_H
#define TRAWL_SHIM_H

#include <stdint.h>

#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

/* Frames of one burst; Rust asserts that it equals limits::BURST. */
#define TRAWL_BURST 64

/* One frame: its first contiguous bytes, and its length over all segments. It is one segment if they are equal. */
struct trawl_frame {
	const uint8_t *data;
	uint32_t head_len;
	uint32_t wire_len;
};

struct trawl_burst {
	struct trawl_frame frames[TRAWL_BURST];
	struct rte_mbuf *mbufs[TRAWL_BURST];
	/* Sum of the frames' wire_len. */
	uint64_t wire_bytes;
	/* Where all mbufs came from, if none is chained, shared or attached to another's memory; NULL otherwise. */
	struct rte_mempool *pool;
};

/* A device before it is configured. */
struct trawl_device {
	char driver[64];
	int32_t socket;
	uint16_t rx_queues_max;
	uint16_t min_mtu;
	uint16_t max_mtu;
	uint32_t max_rx_pktlen;
	uint8_t scatter;
	uint8_t rss;
	uint8_t rss_key_bytes;
};

/* How to configure it. */
struct trawl_setup {
	uint16_t rx_queues;
	uint16_t tx_queues;
	uint32_t mtu;
	uint8_t scatter;
	uint8_t rss;
};

struct trawl_link {
	uint8_t up;
	uint32_t speed_mbps;
};

struct trawl_stats {
	uint64_t ipackets;
	uint64_t ibytes;
	uint64_t imissed;
	uint64_t ierrors;
	uint64_t rx_nombuf;
};

/* Polls a queue once and describes what came. Returns the number of frames. */
uint16_t trawl_rx(uint16_t port, uint16_t queue, struct trawl_burst *burst);
/* As trawl_rx, and no more frames than `max`. */
uint16_t trawl_rx_some(uint16_t port, uint16_t queue, struct trawl_burst *burst, uint16_t max);
/* Gives the first n mbufs of a burst back. */
void trawl_free(struct trawl_burst *burst, uint16_t n);
/* Copies the first len bytes over all segments; returns how many there were. */
uint32_t trawl_gather(const struct rte_mbuf *m, uint8_t *dst, uint32_t len);

/* rte_errno of this thread. */
int trawl_errno(void);
/* Whether this thread has an lcore id already. */
int trawl_thread_is_known(void);
/* The time stamp counter. */
uint64_t trawl_cycles(void);

/* The port of that name or of the device of that name; -1 if there is none. */
int trawl_port_find(const char *name);
/* The arguments with which the port's device was taken, cut at size. Returns 0, or -1 if that is not known. */
int trawl_port_arguments(uint16_t port, char *arguments, size_t size);
/* These return 0 or a negative errno. */
int trawl_port_device(uint16_t port, struct trawl_device *device);
int trawl_port_configure(uint16_t port, const struct trawl_setup *setup);
int trawl_rx_queue_setup(uint16_t port, uint16_t queue, uint16_t descriptors, int32_t socket, int scatter,
			 int drop_en, struct rte_mempool *pool);
/* Descriptors that an RX queue has, once it is set up; 0 if the driver does not say. */
uint16_t trawl_rx_ring(uint16_t port, uint16_t queue);
/* Has the device send and honour no pause frames. It may say that none are on, although only the link is down. */
int trawl_pause_off(uint16_t port, int is_told_truly);
int trawl_tx_queue_setup(uint16_t port, uint16_t queue, uint16_t descriptors, int32_t socket);
/* Whether the device really hashes with our symmetric key; 0 also if it does not say. */
int trawl_port_is_symmetric(uint16_t port);
int trawl_port_link(uint16_t port, struct trawl_link *link);
int trawl_port_stats(uint16_t port, struct trawl_stats *stats);
/* What happens to a port is noted from here on, until it is closed. */
#define TRAWL_RESET 1
#define TRAWL_REMOVED 2
void trawl_port_watch(uint16_t port);
/* What happened to it since the last call; TRAWL_REMOVED too if the driver finds the device gone. */
uint32_t trawl_port_events(uint16_t port);
/* Stops a port, if it was started, and closes it; unplugs its device too if it was plugged by us. */
void trawl_port_close(uint16_t port, int started, int unplug);

/* Builds a frame of segments from a pool and puts it into a named ring of net_ring. vlan: a stripped tag, or -1. */
int trawl_feed(const char *ring, struct rte_mempool *pool, const uint8_t *const *segments, const uint16_t *lens,
	       uint16_t n, int32_t vlan);
/* What is odd about a buffer: its bytes lie in memory that is no pool's, as those of mlx5's multi-packet queues; it shows those of
 * another buffer of the pool; somebody else holds it too. */
#define TRAWL_EXTERNAL 1
#define TRAWL_INDIRECT 2
#define TRAWL_SHARED 3
/* Puts a frame in an odd buffer into the ring. A shared one is put twice. */
int trawl_feed_odd(const char *ring, struct rte_mempool *pool, const uint8_t *bytes, uint16_t len, int odd);
/* Buffers that are in the pool, and memory of others that is still in use. */
uint32_t trawl_pool_free(const struct rte_mempool *pool);
uint32_t trawl_externals(void);

#endif
