/* What Rust sees of the ring that the kernel fills with the frames of a network interface (packet(7), PACKET_RX_RING,
 * TPACKET_V3). Owns the socket options; nothing of DPDK is called here.
 *
 * Invariant: as in shim.h; and each block of the ring goes back to the kernel once, after the last burst that points into it. */
#ifndef TRAWL_RING_H
#define TRAWL_RING_H

#include <stdint.h>

#include "shim.h"

/* A queue's place in its ring. */
struct trawl_ring {
	uint8_t *map;
	uint32_t block_bytes;
	uint32_t blocks;
	/* The block that is read, and its frames that are not read yet. */
	uint32_t block;
	uint32_t left;
	/* The next frame's offset in the block. */
	uint32_t offset;
	/* Blocks before `block` that go back with the burst. */
	uint32_t finished;
	/* Frames that the kernel cut because no block can hold them; they are not delivered. Other threads read it. */
	uint64_t *cut;
	/* Frames whose sender left the checksum to a device that they never met. Other threads read it. */
	uint64_t *unfinished;
	/* When the kernel received the frames of the latest burst, ns since the UNIX epoch. */
	uint64_t times[TRAWL_BURST];
};

/* Frames of a socket since the last call. */
struct trawl_ring_counts {
	uint32_t received;
	uint32_t dropped;
};

/* These return a file descriptor or 0, or a negative errno. */

/* A socket with a ring of so many blocks, bound to no interface: it receives nothing. */
int trawl_ring_open(uint32_t block_bytes, uint32_t blocks, int outgoing);
/* Binds the socket to an interface. It receives nothing before trawl_ring_go. */
int trawl_ring_bind(int fd, uint32_t ifindex);
/* Joins the group of sockets that share an interface's frames by flow; *group is made if it is zero. */
int trawl_ring_join(int fd, uint32_t *group);
/* Receives from here on, also what is not for this host if asked. */
int trawl_ring_go(int fd, uint32_t ifindex, int promiscuous);
int trawl_ring_counts(int fd, struct trawl_ring_counts *counts);

/* Polls the ring once and describes what came. Returns the number of frames. */
uint16_t trawl_ring_rx(struct trawl_ring *ring, struct trawl_burst *burst);
/* Whether the kernel has handed over no frame that was not polled. */
int trawl_ring_is_empty(const struct trawl_ring *ring);
/* Gives back the blocks of the latest burst. */
void trawl_ring_free(struct trawl_ring *ring);

#endif
