/* See shim.h. */
/* rte_dev_event_callback_register is experimental in DPDK 22.11. */
#define ALLOW_EXPERIMENTAL_API
#include "shim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_devargs.h>
#include <rte_ether.h>
#include <rte_prefetch.h>
#include <rte_ring.h>

/* Bytes from the start of the packet to the end of the buffer: a driver's data_len beyond them would be a lie. */
static inline uint32_t
room(const struct rte_mbuf *m)
{
	return m->buf_len > m->data_off ? (uint32_t)(m->buf_len - m->data_off) : 0;
}

static inline uint32_t
segment_len(const struct rte_mbuf *m)
{
	return RTE_MIN((uint32_t)m->data_len, room(m));
}

/* Some drivers strip the VLAN tag although nobody asked for it. A frame that cannot take it back stays as it came. */
static inline struct rte_mbuf *
with_tag(struct rte_mbuf *m)
{
	if (m->data_len >= 2 * RTE_ETHER_ADDR_LEN && rte_vlan_insert(&m) == 0)
		m->ol_flags &= ~(RTE_MBUF_F_RX_VLAN | RTE_MBUF_F_RX_VLAN_STRIPPED);
	return m;
}

/* Nothing to undo before such an mbuf goes back to its pool. A driver sets nb_segs of the first segment. */
static inline int
is_plain(const struct rte_mbuf *m, const struct rte_mempool *pool)
{
	return m->pool == pool && m->nb_segs == 1 && rte_mbuf_refcnt_read(m) == 1 && RTE_MBUF_DIRECT(m);
}

/* Inlined, so that a constant `max` costs nothing. */
static inline __attribute__((always_inline)) uint16_t
receive(uint16_t port, uint16_t queue, struct trawl_burst *burst, uint16_t max)
{
	uint16_t n = rte_eth_rx_burst(port, queue, burst->mbufs, max);
	struct rte_mempool *pool = n > 0 ? burst->mbufs[0]->pool : NULL;
	uint64_t bytes = 0;
	int plain = n > 0;

	for (uint16_t i = 0; i < n; i++) {
		struct rte_mbuf *m = burst->mbufs[i];
		struct trawl_frame *frame = &burst->frames[i];

		if (unlikely(m->ol_flags & RTE_MBUF_F_RX_VLAN_STRIPPED))
			burst->mbufs[i] = m = with_tag(m);
		frame->data = rte_pktmbuf_mtod(m, const uint8_t *);
		rte_prefetch0(frame->data);
		frame->head_len = segment_len(m);
		frame->wire_len = frame->head_len;
		if (likely(is_plain(m, pool))) {
			bytes += frame->wire_len;
			continue;
		}
		plain = 0;
		/* pkt_len is not believed: the sum of the segments is what can be copied. */
		for (m = m->next; m != NULL; m = m->next)
			frame->wire_len += segment_len(m);
		bytes += frame->wire_len;
	}
	burst->wire_bytes = bytes;
	burst->pool = plain ? pool : NULL;
	return n;
}

uint16_t
trawl_rx(uint16_t port, uint16_t queue, struct trawl_burst *burst)
{
	return receive(port, queue, burst, TRAWL_BURST);
}

uint16_t
trawl_rx_some(uint16_t port, uint16_t queue, struct trawl_burst *burst, uint16_t max)
{
	return receive(port, queue, burst, RTE_MIN(max, (uint16_t)TRAWL_BURST));
}

void
trawl_free(struct trawl_burst *burst, uint16_t n)
{
	/* One put instead of a walk over every mbuf's segments, which was 11 % of a worker's time at 64 bytes. */
	if (likely(burst->pool != NULL))
		rte_mempool_put_bulk(burst->pool, (void *const *)burst->mbufs, n);
	else
		rte_pktmbuf_free_bulk(burst->mbufs, n);
}

uint32_t
trawl_gather(const struct rte_mbuf *m, uint8_t *dst, uint32_t len)
{
	uint32_t done = 0;

	for (; m != NULL && done < len; m = m->next) {
		uint32_t part = RTE_MIN(segment_len(m), len - done);

		memcpy(dst + done, rte_pktmbuf_mtod(m, const uint8_t *), part);
		done += part;
	}
	return done;
}

int
trawl_errno(void)
{
	return rte_errno;
}

int
trawl_thread_is_known(void)
{
	return rte_lcore_id() != LCORE_ID_ANY;
}

uint64_t
trawl_cycles(void)
{
	return rte_rdtsc();
}

int
trawl_port_find(const char *name)
{
	uint16_t port;

	if (rte_eth_dev_get_port_by_name(name, &port) == 0)
		return port;
	RTE_ETH_FOREACH_DEV(port) {
		struct rte_eth_dev_info info;

		if (rte_eth_dev_info_get(port, &info) == 0 && info.device != NULL &&
		    strcmp(rte_dev_name(info.device), name) == 0)
			return port;
	}
	return -1;
}

int
trawl_port_arguments(uint16_t port, char *arguments, size_t size)
{
	const struct rte_devargs *devargs;
	struct rte_eth_dev_info info;

	arguments[0] = '\0';
	if (rte_eth_dev_info_get(port, &info) != 0 || info.device == NULL)
		return -1;
	devargs = rte_dev_devargs(info.device);
	if (devargs != NULL && devargs->args != NULL)
		snprintf(arguments, size, "%s", devargs->args);
	return 0;
}

int
trawl_port_device(uint16_t port, struct trawl_device *device)
{
	struct rte_eth_dev_info info;
	int ret = rte_eth_dev_info_get(port, &info);

	if (ret != 0)
		return ret;
	memset(device, 0, sizeof(*device));
	if (info.driver_name != NULL)
		strncpy(device->driver, info.driver_name, sizeof(device->driver) - 1);
	device->socket = rte_eth_dev_socket_id(port);
	device->rx_queues_max = info.max_rx_queues;
	device->min_mtu = info.min_mtu;
	device->max_mtu = info.max_mtu;
	device->max_rx_pktlen = info.max_rx_pktlen;
	device->scatter = (info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_SCATTER) != 0;
	device->rss = (info.flow_type_rss_offloads &
		       (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_SCTP)) != 0;
	device->rss_key_bytes = info.hash_key_size;
	return 0;
}

/* 0x6D5A repeated makes Toeplitz symmetric: both directions of a flow reach one queue (Woo and Park, 2012). */
static uint8_t
symmetric_key(size_t i)
{
	return i % 2 == 0 ? 0x6d : 0x5a;
}

int
trawl_port_configure(uint16_t port, const struct trawl_setup *setup)
{
	uint8_t key[UINT8_MAX];
	struct rte_eth_dev_info info;
	struct rte_eth_conf conf;
	int ret = rte_eth_dev_info_get(port, &info);

	if (ret != 0)
		return ret;
	memset(&conf, 0, sizeof(conf));
	conf.rxmode.mtu = setup->mtu;
	if (setup->scatter)
		conf.rxmode.offloads |= info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_SCATTER;
	if (setup->rss) {
		for (size_t i = 0; i < sizeof(key); i++)
			key[i] = symmetric_key(i);
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rx_adv_conf.rss_conf.rss_hf =
			info.flow_type_rss_offloads &
			(RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_SCTP);
		if (info.hash_key_size != 0) {
			conf.rx_adv_conf.rss_conf.rss_key = key;
			conf.rx_adv_conf.rss_conf.rss_key_len = info.hash_key_size;
		}
	}
	return rte_eth_dev_configure(port, setup->rx_queues, setup->tx_queues, &conf);
}

int
trawl_rx_queue_setup(uint16_t port, uint16_t queue, uint16_t descriptors, int32_t socket, int scatter,
		     int drop_en, struct rte_mempool *pool)
{
	struct rte_eth_dev_info info;
	struct rte_eth_rxconf conf;
	int ret = rte_eth_dev_info_get(port, &info);

	if (ret != 0)
		return ret;
	conf = info.default_rxconf;
	conf.offloads = scatter ? info.rx_queue_offload_capa & RTE_ETH_RX_OFFLOAD_SCATTER : 0;
	if (drop_en)
		conf.rx_drop_en = 1;
	return rte_eth_rx_queue_setup(port, queue, descriptors, (unsigned int)socket, &conf, pool);
}

uint16_t
trawl_rx_ring(uint16_t port, uint16_t queue)
{
	struct rte_eth_rxq_info info;

	memset(&info, 0, sizeof(info));
	return rte_eth_rx_queue_info_get(port, queue, &info) == 0 ? info.nb_desc : 0;
}

int
trawl_pause_off(uint16_t port, int is_told_truly)
{
	struct rte_eth_fc_conf conf;
	int ret;

	memset(&conf, 0, sizeof(conf));
	ret = rte_eth_dev_flow_ctrl_get(port, &conf);
	if (ret != 0 || (is_told_truly && conf.mode == RTE_ETH_FC_NONE))
		return ret;
	conf.mode = RTE_ETH_FC_NONE;
	return rte_eth_dev_flow_ctrl_set(port, &conf);
}

int
trawl_tx_queue_setup(uint16_t port, uint16_t queue, uint16_t descriptors, int32_t socket)
{
	return rte_eth_tx_queue_setup(port, queue, descriptors, (unsigned int)socket, NULL);
}

int
trawl_port_is_symmetric(uint16_t port)
{
	uint8_t key[UINT8_MAX] = {0};
	struct rte_eth_dev_info info;
	struct rte_eth_rss_conf conf;

	memset(&conf, 0, sizeof(conf));
	if (rte_eth_dev_info_get(port, &info) != 0 || info.hash_key_size == 0)
		return 0;
	conf.rss_key = key;
	conf.rss_key_len = info.hash_key_size;
	if (rte_eth_dev_rss_hash_conf_get(port, &conf) != 0 || conf.rss_hf == 0)
		return 0;
	for (size_t i = 0; i < info.hash_key_size; i++)
		if (key[i] != symmetric_key(i))
			return 0;
	return 1;
}

int
trawl_port_link(uint16_t port, struct trawl_link *out)
{
	struct rte_eth_link link;
	int ret;

	memset(&link, 0, sizeof(link));
	ret = rte_eth_link_get_nowait(port, &link);
	out->up = link.link_status == RTE_ETH_LINK_UP;
	out->speed_mbps = link.link_speed == RTE_ETH_SPEED_NUM_UNKNOWN ? 0 : link.link_speed;
	return ret;
}

int
trawl_port_stats(uint16_t port, struct trawl_stats *out)
{
	struct rte_eth_stats stats;
	int ret;

	memset(&stats, 0, sizeof(stats));
	ret = rte_eth_stats_get(port, &stats);
	out->ipackets = stats.ipackets;
	out->ibytes = stats.ibytes;
	out->imissed = stats.imissed;
	out->ierrors = stats.ierrors;
	out->rx_nombuf = stats.rx_nombuf;
	return ret;
}

/* Threads of EAL add to it. */
static uint32_t happened[RTE_MAX_ETHPORTS];

static void
note(uint16_t port, uint32_t event)
{
	__atomic_fetch_or(&happened[port], event, __ATOMIC_RELAXED);
}

static int
on_port_event(uint16_t port, enum rte_eth_event_type event, void *unused, void *no_answer)
{
	note(port, event == RTE_ETH_EVENT_INTR_RMV ? TRAWL_REMOVED : TRAWL_RESET);
	return 0;
}

/* A device's bus tells that somebody wants to take it away. */
static void
on_device_event(const char *name, enum rte_dev_event_type event, void *port)
{
	if (event == RTE_DEV_EVENT_REMOVE)
		note((uint16_t)(uintptr_t)port, TRAWL_REMOVED);
}

static const char *
device_name(uint16_t port)
{
	struct rte_eth_dev_info info;

	return rte_eth_dev_info_get(port, &info) == 0 && info.device != NULL ? rte_dev_name(info.device) : NULL;
}

void
trawl_port_watch(uint16_t port)
{
	const char *name = device_name(port);

	__atomic_store_n(&happened[port], 0, __ATOMIC_RELAXED);
	rte_eth_dev_callback_register(port, RTE_ETH_EVENT_INTR_RESET, on_port_event, NULL);
	rte_eth_dev_callback_register(port, RTE_ETH_EVENT_INTR_RMV, on_port_event, NULL);
	if (name != NULL)
		rte_dev_event_callback_register(name, on_device_event, (void *)(uintptr_t)port);
}

static void
unwatch(uint16_t port)
{
	const char *name = device_name(port);

	rte_eth_dev_callback_unregister(port, RTE_ETH_EVENT_INTR_RESET, on_port_event, NULL);
	rte_eth_dev_callback_unregister(port, RTE_ETH_EVENT_INTR_RMV, on_port_event, NULL);
	if (name != NULL)
		rte_dev_event_callback_unregister(name, on_device_event, (void *)(uintptr_t)port);
}

uint32_t
trawl_port_events(uint16_t port)
{
	uint32_t events = __atomic_exchange_n(&happened[port], 0, __ATOMIC_RELAXED);

	return events | (rte_eth_dev_is_removed(port) == 1 ? TRAWL_REMOVED : 0);
}

/* net_ring leaves rings behind that a later port of its name finds again, with frames whose pool is gone by then. */
static void
drain(uint16_t port, uint16_t queues)
{
	static struct trawl_burst burst;

	for (uint16_t queue = 0; queue < queues; queue++) {
		uint16_t n;

		do {
			n = trawl_rx(port, queue, &burst);
			trawl_free(&burst, n);
		} while (n > 0);
	}
}

void
trawl_port_close(uint16_t port, int started, int unplug)
{
	struct rte_eth_dev_info info;
	struct rte_device *device = NULL;

	if (rte_eth_dev_info_get(port, &info) == 0) {
		device = (struct rte_device *)(uintptr_t)info.device;
		if (started && info.driver_name != NULL && strcmp(info.driver_name, "net_ring") == 0)
			drain(port, info.nb_rx_queues);
	}
	if (started) {
		unwatch(port);
		rte_eth_dev_stop(port);
	}
	rte_eth_dev_close(port);
	if (unplug && device != NULL)
		rte_dev_remove(device);
}

int
trawl_feed(const char *ring_name, struct rte_mempool *pool, const uint8_t *const *segments, const uint16_t *lens,
	   uint16_t n, int32_t vlan)
{
	struct rte_ring *ring = rte_ring_lookup(ring_name);
	struct rte_mbuf *head = NULL;
	struct rte_mbuf **next = &head;

	if (ring == NULL)
		return -ENODEV;
	for (uint16_t i = 0; i < n; i++) {
		struct rte_mbuf *m = rte_pktmbuf_alloc(pool);
		char *room = m == NULL ? NULL : rte_pktmbuf_append(m, lens[i]);

		if (room == NULL) {
			rte_pktmbuf_free(m);
			rte_pktmbuf_free(head);
			return -ENOBUFS;
		}
		memcpy(room, segments[i], lens[i]);
		*next = m;
		next = &m->next;
		if (m != head) {
			head->pkt_len += lens[i];
			head->nb_segs++;
		}
	}
	if (head == NULL)
		return -EINVAL;
	if (vlan >= 0) {
		head->vlan_tci = (uint16_t)vlan;
		head->ol_flags |= RTE_MBUF_F_RX_VLAN | RTE_MBUF_F_RX_VLAN_STRIPPED;
	}
	if (rte_ring_enqueue(ring, head) != 0) {
		rte_pktmbuf_free(head);
		return -ENOSPC;
	}
	return 0;
}

static uint32_t externals;

static void
external_is_free(void *memory, void *unused)
{
	free(memory);
	__atomic_fetch_sub(&externals, 1, __ATOMIC_RELAXED);
}

static struct rte_mbuf *
external(struct rte_mempool *pool, uint16_t room)
{
	struct rte_mbuf_ext_shared_info *shared;
	struct rte_mbuf *m = rte_pktmbuf_alloc(pool);
	uint16_t bytes = room + sizeof(*shared) + sizeof(uintptr_t);
	void *memory = m == NULL ? NULL : malloc(bytes);

	if (memory == NULL) {
		rte_pktmbuf_free(m);
		return NULL;
	}
	shared = rte_pktmbuf_ext_shinfo_init_helper(memory, &bytes, external_is_free, NULL);
	rte_pktmbuf_attach_extbuf(m, memory, RTE_BAD_IOVA, bytes, shared);
	__atomic_fetch_add(&externals, 1, __ATOMIC_RELAXED);
	return m;
}

/* The clone alone keeps the buffer that it shows. */
static struct rte_mbuf *
indirect(struct rte_mbuf *m, struct rte_mempool *pool)
{
	struct rte_mbuf *clone = rte_pktmbuf_clone(m, pool);

	rte_pktmbuf_free(m);
	return clone;
}

int
trawl_feed_odd(const char *ring_name, struct rte_mempool *pool, const uint8_t *bytes, uint16_t len, int odd)
{
	struct rte_ring *ring = rte_ring_lookup(ring_name);
	struct rte_mbuf *m = odd == TRAWL_EXTERNAL ? external(pool, len) : rte_pktmbuf_alloc(pool);
	char *room = m == NULL ? NULL : rte_pktmbuf_append(m, len);

	if (room != NULL)
		memcpy(room, bytes, len);
	if (room != NULL && odd == TRAWL_INDIRECT)
		m = indirect(m, pool);
	if (room == NULL || m == NULL) {
		rte_pktmbuf_free(m);
		return -ENOBUFS;
	}
	if (odd == TRAWL_SHARED)
		rte_mbuf_refcnt_update(m, 1);
	for (int times = odd == TRAWL_SHARED ? 2 : 1; times > 0; times--) {
		if (ring == NULL || rte_ring_enqueue(ring, m) != 0) {
			for (; times > 0; times--)
				rte_pktmbuf_free(m);
			return -ENOSPC;
		}
	}
	return 0;
}

uint32_t
trawl_pool_free(const struct rte_mempool *pool)
{
	return rte_mempool_avail_count(pool);
}

uint32_t
trawl_externals(void)
{
	return __atomic_load_n(&externals, __ATOMIC_RELAXED);
}
