/* Preloaded: lets a software device behave as a NIC's driver does. It stands between the program and librte_ethdev, whose
 * functions are exported symbols, and changes what they say and take. Owns the quirks; receiving is not touched.
 *
 * TRAWL_QUIRKS is a list of key=value, separated by blanks:
 *   driver=NAME          the driver's name
 *   scatter=1            it offers scatter
 *   max_mtu=N
 *   fill=N               at the start each queue needs N buffers a descriptor, rounded up to a power of two
 *   fill_scattered=N     the same if scatter was asked for
 *   segments=N           descriptors of a frame if scatter was asked for: so much shorter is the ring
 *   ring=N               the ring that it has, whatever was asked for; 0: it does not say
 *   pow2=configure|start it refuses other numbers of queues there
 *   needs_tx=1           it refuses to be configured with fewer TX queues than RX queues
 *   start_mtu_max=N      it refuses to start with a longer MTU
 *   promiscuous=N        what it returns
 *   mtu=N                what set_mtu returns
 *   pause=N              0: none; 3: full; negative: what it returns
 *   stats=N              what stats_get returns, if not 0
 * TRAWL_QUIRKS_LOG is a file to which calls are appended, a line each. TRAWL_QUIRKS_STATS is a file of `NAME VALUE`, the counters;
 * names that rte_eth_stats has not are extended counters. `event N` is no counter: that event happens (rte_eth_event_type). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_ethdev.h>
#include <rte_mempool.h>

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define QUEUES 16

static struct rte_mempool *pools[QUEUES];
static uint16_t descriptors[QUEUES];
static uint16_t queues;
static uint32_t mtu;
static int scattered;
static int pause_mode = -1;

static int
text(const char *key, char *value, size_t size)
{
	const char *at = getenv("TRAWL_QUIRKS");
	size_t len = strlen(key);

	while (at != NULL && *at != '\0') {
		if (strncmp(at, key, len) == 0 && at[len] == '=') {
			snprintf(value, size, "%.*s", (int)strcspn(at + len + 1, " "), at + len + 1);
			return 1;
		}
		at += strcspn(at, " ");
		at += strspn(at, " ");
	}
	return 0;
}

static long
number(const char *key, long otherwise)
{
	char value[64];

	return text(key, value, sizeof(value)) ? strtol(value, NULL, 0) : otherwise;
}

static int
is(const char *key, const char *wanted)
{
	char value[64];

	return text(key, value, sizeof(value)) && strcmp(value, wanted) == 0;
}

static void
note(const char *format, ...)
{
	const char *path = getenv("TRAWL_QUIRKS_LOG");
	FILE *file = path == NULL ? NULL : fopen(path, "a");
	va_list arguments;

	if (file == NULL)
		return;
	va_start(arguments, format);
	vfprintf(file, format, arguments);
	va_end(arguments);
	fputc('\n', file);
	fclose(file);
}

static uint32_t
power_of_two(uint32_t n)
{
	uint32_t power = 1;

	while (power < n)
		power *= 2;
	return power;
}

int
rte_eth_dev_info_get(uint16_t port, struct rte_eth_dev_info *info)
{
	static char driver[64];
	REAL(rte_eth_dev_info_get);
	int ret = real(port, info);

	if (ret != 0)
		return ret;
	if (text("driver", driver, sizeof(driver)))
		info->driver_name = driver;
	if (number("scatter", 0)) {
		info->rx_offload_capa |= RTE_ETH_RX_OFFLOAD_SCATTER;
		info->rx_queue_offload_capa |= RTE_ETH_RX_OFFLOAD_SCATTER;
	}
	info->max_mtu = (uint16_t)number("max_mtu", info->max_mtu);
	return 0;
}

int
rte_eth_dev_configure(uint16_t port, uint16_t rx, uint16_t tx, const struct rte_eth_conf *asked)
{
	struct rte_eth_conf conf = *asked;
	REAL(rte_eth_dev_configure);

	queues = rx;
	mtu = conf.rxmode.mtu;
	scattered = (conf.rxmode.offloads & RTE_ETH_RX_OFFLOAD_SCATTER) != 0;
	note("configure rx=%u tx=%u mtu=%u scatter=%d", rx, tx, mtu, scattered);
	if (is("pow2", "configure") && power_of_two(rx) != rx)
		return -EINVAL;
	if (number("needs_tx", 0) && tx < rx)
		return -EINVAL;
	conf.rxmode.offloads = 0;
	return real(port, rx, tx, &conf);
}

int
rte_eth_rx_queue_setup(uint16_t port, uint16_t queue, uint16_t n, unsigned int socket, const struct rte_eth_rxconf *asked,
		       struct rte_mempool *pool)
{
	struct rte_eth_rxconf conf = *asked;
	REAL(rte_eth_rx_queue_setup);

	note("rx_queue %u descriptors=%u drop_en=%u", queue, n, conf.rx_drop_en);
	if (queue < QUEUES) {
		pools[queue] = pool;
		descriptors[queue] = n;
	}
	conf.offloads = 0;
	return real(port, queue, n, socket, &conf, pool);
}

int
rte_eth_rx_queue_info_get(uint16_t port, uint16_t queue, struct rte_eth_rxq_info *info)
{
	long segments = scattered ? number("segments", 1) : 1;
	long ring = number("ring", descriptors[queue % QUEUES] / segments);

	(void)port;
	memset(info, 0, sizeof(*info));
	info->nb_desc = (uint16_t)ring;
	return ring == 0 ? -ENOTSUP : 0;
}

int
rte_eth_dev_start(uint16_t port)
{
	long fill = scattered ? number("fill_scattered", number("fill", 0)) : number("fill", 0);
	REAL(rte_eth_dev_start);

	note("start");
	if (is("pow2", "start") && power_of_two(queues) != queues)
		return -1;
	if (mtu > (uint32_t)number("start_mtu_max", UINT16_MAX))
		return -EINVAL;
	for (uint16_t queue = 0; queue < queues && queue < QUEUES; queue++)
		if (rte_mempool_avail_count(pools[queue]) <= fill * power_of_two(descriptors[queue]))
			return -ENOMEM;
	return real(port);
}

int
rte_eth_promiscuous_enable(uint16_t port)
{
	REAL(rte_eth_promiscuous_enable);
	long ret = number("promiscuous", 0);

	return ret != 0 ? (int)ret : real(port);
}

int
rte_eth_dev_set_mtu(uint16_t port, uint16_t wanted)
{
	(void)port;
	note("set_mtu %u", wanted);
	return (int)number("mtu", 0);
}

int
rte_eth_dev_flow_ctrl_get(uint16_t port, struct rte_eth_fc_conf *conf)
{
	(void)port;
	if (pause_mode == -1)
		pause_mode = (int)number("pause", -ENOTSUP);
	if (pause_mode < 0)
		return pause_mode;
	conf->mode = (enum rte_eth_fc_mode)pause_mode;
	return 0;
}

int
rte_eth_dev_flow_ctrl_set(uint16_t port, struct rte_eth_fc_conf *conf)
{
	(void)port;
	note("pause %d", (int)conf->mode);
	pause_mode = (int)conf->mode;
	return 0;
}

/* The next counter of the file. */
static int
counter(FILE *file, char name[RTE_ETH_XSTATS_NAME_SIZE], uint64_t *value)
{
	unsigned long long read;

	if (file == NULL || fscanf(file, "%63s %llu", name, &read) != 2)
		return 0;
	*value = read;
	return 1;
}

static FILE *
counters(void)
{
	const char *path = getenv("TRAWL_QUIRKS_STATS");

	return path == NULL ? NULL : fopen(path, "r");
}

static rte_eth_dev_cb_fn callbacks[RTE_ETH_EVENT_MAX];

int
rte_eth_dev_callback_register(uint16_t port, enum rte_eth_event_type event, rte_eth_dev_cb_fn callback, void *argument)
{
	REAL(rte_eth_dev_callback_register);

	note("watch %d", (int)event);
	callbacks[event] = callback;
	return real(port, event, callback, argument);
}

static void
happen(uint16_t port, uint64_t event)
{
	if (event < RTE_ETH_EVENT_MAX && callbacks[event] != NULL)
		callbacks[event](port, (enum rte_eth_event_type)event, NULL, NULL);
}

static uint64_t *
member(struct rte_eth_stats *stats, const char *name)
{
	if (strcmp(name, "ipackets") == 0)
		return &stats->ipackets;
	if (strcmp(name, "imissed") == 0)
		return &stats->imissed;
	if (strcmp(name, "ierrors") == 0)
		return &stats->ierrors;
	if (strcmp(name, "rx_nombuf") == 0)
		return &stats->rx_nombuf;
	return NULL;
}

int
rte_eth_stats_get(uint16_t port, struct rte_eth_stats *stats)
{
	char name[RTE_ETH_XSTATS_NAME_SIZE];
	uint64_t value, *at;
	FILE *file = counters();

	memset(stats, 0, sizeof(*stats));
	while (counter(file, name, &value)) {
		if ((at = member(stats, name)) != NULL)
			*at = value;
		else if (strcmp(name, "event") == 0)
			happen(port, value);
	}
	if (file != NULL)
		fclose(file);
	return (int)number("stats", 0);
}

static int
extended(struct rte_eth_xstat_name *names, struct rte_eth_xstat *values, unsigned int size)
{
	char name[RTE_ETH_XSTATS_NAME_SIZE];
	struct rte_eth_stats none;
	FILE *file = counters();
	unsigned int n = 0;
	uint64_t value;

	while (counter(file, name, &value)) {
		if (member(&none, name) != NULL || strcmp(name, "event") == 0)
			continue;
		if (names != NULL && n < size)
			memcpy(names[n].name, name, sizeof(name));
		if (values != NULL && n < size)
			values[n] = (struct rte_eth_xstat){ .id = n, .value = value };
		n++;
	}
	if (file != NULL)
		fclose(file);
	return (int)n;
}

int
rte_eth_xstats_get_names(uint16_t port, struct rte_eth_xstat_name *names, unsigned int size)
{
	(void)port;
	return extended(names, NULL, size);
}

int
rte_eth_xstats_get(uint16_t port, struct rte_eth_xstat *values, unsigned int size)
{
	(void)port;
	return extended(NULL, values, size);
}
