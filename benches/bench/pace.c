/* A pacer for dpdk-testpmd, loaded by EAL's -d: a TX callback on every port that holds a burst back until its time has
 * come, so that an unchanged testpmd sends at a steady rate. testpmd itself has no rate for net_vhost.
 *
 *   cc -O2 -shared -fPIC -o pace.so pace.c $(pkg-config --cflags --libs libdpdk)
 *
 * The environment variable TRAWL_PACE names a file that is mapped; it begins with these two 64-bit numbers, in the host's
 * order, which may be changed at any time:
 *   rate   packets a second; 0: as fast as it goes
 *   imix   not 0: frames of 1514 bytes become 7 : 4 : 1 of 60, 590 and 1514 bytes (64, 594, 1518 with FCS)
 *
 * What a burst is late by, up to LATE_MAX, is made good by the next ones; a longer pause, because the core was taken away, is
 * not, or it would end in one large burst. So the rate is a ceiling, and the sender's own count says what was sent. */

#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <rte_ip.h>
#include <rte_mbuf.h>
#include <rte_pause.h>
#include <rte_udp.h>

struct control {
    volatile uint64_t rate;
    volatile uint64_t imix;
};

/* A tenth of a millisecond: some hundred frames, which a ring of 1024 takes. */
#define LATE_MAX (rte_get_tsc_hz() / 10000)

static struct control *control;
static __thread uint64_t due;
static __thread unsigned number;

/* Large and small ones alternate instead of standing in blocks. */
static const uint16_t IMIX_BYTES[12] = {60, 590, 60, 60, 590, 60, 1514, 60, 590, 60, 60, 590};

static void shorten(struct rte_mbuf *frame, uint16_t bytes)
{
    struct rte_ipv4_hdr *ip = rte_pktmbuf_mtod_offset(frame, struct rte_ipv4_hdr *, sizeof(struct rte_ether_hdr));
    struct rte_udp_hdr *udp = (struct rte_udp_hdr *)(ip + 1);
    if (frame->nb_segs != 1 || frame->data_len < bytes)
        return;
    frame->data_len = bytes;
    frame->pkt_len = bytes;
    ip->total_length = rte_cpu_to_be_16(bytes - sizeof(struct rte_ether_hdr));
    ip->hdr_checksum = 0;
    ip->hdr_checksum = rte_ipv4_cksum(ip);
    udp->dgram_len = rte_cpu_to_be_16(bytes - sizeof(struct rte_ether_hdr) - sizeof(*ip));
}

static uint16_t pace(uint16_t port, uint16_t queue, struct rte_mbuf *frames[], uint16_t count, void *unused)
{
    uint64_t rate = control->rate, now;
    (void)port, (void)queue, (void)unused;
    if (control->imix)
        for (uint16_t i = 0; i < count; i++)
            shorten(frames[i], IMIX_BYTES[number++ % RTE_DIM(IMIX_BYTES)]);
    if (!rate)
        return count;
    while ((now = rte_rdtsc()) < due)
        rte_pause();
    due = (due + LATE_MAX > now ? due : now) + rte_get_tsc_hz() * count / rate;
    return count;
}

/* A port has queues only once testpmd has set it up, and nothing tells a plug-in of that moment. */
static void *attach(void *unused)
{
    uint8_t attached[RTE_MAX_ETHPORTS] = {0};
    (void)unused;
    for (;;) {
        uint16_t port;
        RTE_ETH_FOREACH_DEV(port) {
            struct rte_eth_dev_info info;
            if (attached[port] || rte_eth_dev_info_get(port, &info) || !info.nb_tx_queues)
                continue;
            for (uint16_t queue = 0; queue < info.nb_tx_queues; queue++)
                if (!rte_eth_add_tx_callback(port, queue, pace, NULL))
                    fprintf(stderr, "pace: no callback on port %u queue %u\n", port, queue);
            attached[port] = 1;
            fprintf(stderr, "pace: port %u is paced\n", port);
        }
        usleep(10000);
    }
    return NULL;
}

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("TRAWL_PACE");
    pthread_t thread;
    int file = path ? open(path, O_RDWR) : -1;
    void *mapping = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(*control), PROT_READ, MAP_SHARED, file, 0);
    if (mapping == MAP_FAILED) {
        fprintf(stderr, "pace: TRAWL_PACE must name a file of %zu bytes\n", sizeof(*control));
        exit(1);
    }
    control = mapping;
    if (pthread_create(&thread, NULL, attach, NULL) || pthread_detach(thread)) {
        fprintf(stderr, "pace: no thread\n");
        exit(1);
    }
}
