/* See ring.h. Sources: packet(7), the kernel's Documentation/networking/packet_mmap.rst and net/packet/af_packet.c. */
#include "ring.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>

/* Bytes of the MAC addresses, behind which a tag belongs, and of a tag. */
#define ADDRESSES_BYTES 12
#define TAG_BYTES 4

/* The longest time that a frame waits in a block that is not full. */
#define BLOCK_MS 10

static int
set(int fd, int option, const void *value, socklen_t bytes)
{
	return setsockopt(fd, SOL_PACKET, option, value, bytes) == 0 ? 0 : -errno;
}

/* Without DEFRAG in the fan-out and with IGNORE_OUTGOING: each frame as it came in, and once. */
static int
set_up(int fd, uint32_t block_bytes, uint32_t blocks, int outgoing)
{
	int version = TPACKET_V3, reserve = TAG_BYTES, ignore = !outgoing, ret;
	struct tpacket_req3 ring = {
		.tp_block_size = block_bytes,
		.tp_block_nr = blocks,
		.tp_frame_size = TPACKET_ALIGNMENT << 7,
		.tp_retire_blk_tov = BLOCK_MS,
	};

	ring.tp_frame_nr = block_bytes / ring.tp_frame_size * blocks;
	if ((ret = set(fd, PACKET_VERSION, &version, sizeof(version))) != 0 ||
	    (ret = set(fd, PACKET_RESERVE, &reserve, sizeof(reserve))) != 0 ||
	    (ret = set(fd, PACKET_IGNORE_OUTGOING, &ignore, sizeof(ignore))) != 0)
		return ret;
	return set(fd, PACKET_RX_RING, &ring, sizeof(ring));
}

int
trawl_ring_open(uint32_t block_bytes, uint32_t blocks, int outgoing)
{
	/* Protocol 0: the socket sees no frame of any interface before it is bound. */
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	int ret = fd < 0 ? -errno : set_up(fd, block_bytes, blocks, outgoing);

	if (ret == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return ret;
}

int
trawl_ring_bind(int fd, uint32_t ifindex)
{
	/* Takes nothing: between bind and trawl_ring_join, each socket of a group would get every frame. */
	struct sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog program = {.len = 1, .filter = &nothing};
	struct sockaddr_ll address;

	memset(&address, 0, sizeof(address));
	address.sll_family = AF_PACKET;
	address.sll_protocol = htons(ETH_P_ALL);
	address.sll_ifindex = (int)ifindex;
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) != 0)
		return -errno;
	return bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 ? 0 : -errno;
}

int
trawl_ring_join(int fd, uint32_t *group)
{
	int type = PACKET_FANOUT_HASH | (*group == 0 ? PACKET_FANOUT_FLAG_UNIQUEID : 0);
	int argument = (int)(*group & 0xffff) | type << 16;
	socklen_t bytes = sizeof(argument);
	int ret = set(fd, PACKET_FANOUT, &argument, sizeof(argument));

	if (ret != 0 || *group != 0)
		return ret;
	if (getsockopt(fd, SOL_PACKET, PACKET_FANOUT, &argument, &bytes) != 0)
		return -errno;
	/* The kernel may choose 0, which says "none" here. */
	*group = ((uint32_t)argument & 0xffff) | 0x10000;
	return 0;
}

int
trawl_ring_go(int fd, uint32_t ifindex, int promiscuous)
{
	struct packet_mreq membership = {.mr_ifindex = (int)ifindex, .mr_type = PACKET_MR_PROMISC};
	struct trawl_ring_counts before;
	int unused = 0, ret;

	if (promiscuous && (ret = set(fd, PACKET_ADD_MEMBERSHIP, &membership, sizeof(membership))) != 0)
		return ret;
	ret = trawl_ring_counts(fd, &before);
	if (ret != 0)
		return ret;
	return setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof(unused)) == 0 ? 0 : -errno;
}

int
trawl_ring_counts(int fd, struct trawl_ring_counts *counts)
{
	struct tpacket_stats_v3 stats;
	socklen_t bytes = sizeof(stats);

	memset(&stats, 0, sizeof(stats));
	if (getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &stats, &bytes) != 0)
		return -errno;
	counts->dropped = stats.tp_drops;
	/* The kernel counts what it dropped among what it saw. */
	counts->received = stats.tp_packets - stats.tp_drops;
	return 0;
}

static struct tpacket_block_desc *
block_of(const struct trawl_ring *ring, uint32_t block)
{
	return (struct tpacket_block_desc *)(ring->map + (size_t)block * ring->block_bytes);
}

/* Whether the kernel has closed the next block. */
static int
is_closed(const struct trawl_ring *ring)
{
	const struct tpacket_block_desc *desc = block_of(ring, ring->block);

	return ring->finished != ring->blocks &&
	       (__atomic_load_n(&desc->hdr.bh1.block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER) != 0;
}

int
trawl_ring_is_empty(const struct trawl_ring *ring)
{
	return ring->left == 0 && !is_closed(ring);
}

/* Begins the next block, if the kernel has closed it. */
static int
begin(struct trawl_ring *ring)
{
	struct tpacket_block_desc *desc = block_of(ring, ring->block);

	if (!is_closed(ring))
		return 0;
	ring->left = desc->hdr.bh1.num_pkts;
	ring->offset = desc->hdr.bh1.offset_to_first_pkt;
	return 1;
}

static void
finish(struct trawl_ring *ring)
{
	ring->block = ring->block + 1 == ring->blocks ? 0 : ring->block + 1;
	ring->finished++;
}

/* Puts back the tag that the kernel took out, before the frame: PACKET_RESERVE made the room. */
static uint8_t *
with_tag(uint8_t *data, const struct tpacket3_hdr *header)
{
	uint16_t tag[2];

	tag[0] = htons(header->tp_status & TP_STATUS_VLAN_TPID_VALID ? header->hv1.tp_vlan_tpid : ETH_P_8021Q);
	tag[1] = htons((uint16_t)header->hv1.tp_vlan_tci);
	memmove(data - TAG_BYTES, data, ADDRESSES_BYTES);
	memcpy(data - TAG_BYTES + ADDRESSES_BYTES, tag, TAG_BYTES);
	return data - TAG_BYTES;
}

/* One thread counts, others read. */
static void
count(uint64_t *counter, uint32_t frames)
{
	__atomic_store_n(counter, *counter + frames, __ATOMIC_RELAXED);
}

/* Describes the frame at the ring's place, and moves on. Returns 0 if it is not to be delivered. */
static int
take(struct trawl_ring *ring, struct trawl_frame *frame, uint64_t *time)
{
	uint8_t *block = ring->map + (size_t)ring->block * ring->block_bytes;
	const struct tpacket3_hdr *header = (const struct tpacket3_hdr *)(block + ring->offset);
	uint32_t at, bytes, room;

	if (ring->offset > ring->block_bytes - sizeof(*header)) {
		/* The kernel does not write such a block; what is left of it cannot be read. */
		count(ring->cut, ring->left);
		ring->left = 0;
		return 0;
	}
	at = ring->offset + header->tp_mac;
	bytes = header->tp_snaplen;
	room = at < ring->block_bytes ? ring->block_bytes - at : 0;
	ring->left--;
	ring->offset += header->tp_next_offset;
	if (unlikely(bytes < header->tp_len || bytes > room)) {
		count(ring->cut, 1);
		return 0;
	}
	frame->data = block + at;
	if (unlikely(header->tp_status & TP_STATUS_VLAN_VALID) && bytes >= ADDRESSES_BYTES &&
	    header->tp_mac >= sizeof(*header) + TAG_BYTES) {
		frame->data = with_tag(block + at, header);
		bytes += TAG_BYTES;
	}
	if (unlikely(header->tp_status & TP_STATUS_CSUMNOTREADY))
		count(ring->unfinished, 1);
	frame->head_len = bytes;
	frame->wire_len = bytes;
	*time = header->tp_sec * UINT64_C(1000000000) + header->tp_nsec;
	return 1;
}

uint16_t
trawl_ring_rx(struct trawl_ring *ring, struct trawl_burst *burst)
{
	uint64_t bytes = 0;
	uint16_t n = 0;

	while (n < TRAWL_BURST && (ring->left > 0 || begin(ring))) {
		while (n < TRAWL_BURST && ring->left > 0) {
			if (take(ring, &burst->frames[n], &ring->times[n]))
				bytes += burst->frames[n++].wire_len;
		}
		if (ring->left == 0)
			finish(ring);
	}
	burst->wire_bytes = bytes;
	return n;
}

void
trawl_ring_free(struct trawl_ring *ring)
{
	uint32_t block = ring->block + ring->blocks - ring->finished;

	for (; ring->finished > 0; ring->finished--, block++) {
		uint32_t *status = &block_of(ring, block % ring->blocks)->hdr.bh1.block_status;

		__atomic_store_n(status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
	}
}
