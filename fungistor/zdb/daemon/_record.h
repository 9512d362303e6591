/* Checks of a data record in plain memory: CRC-32C by the processor's own instruction where it has one, and a look at
 * a mapped file that survives pages which cannot be read.
 */
#ifndef FUNGISTOR_RECORD_H
#define FUNGISTOR_RECORD_H

#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CRC_POLYNOMIAL 0x82F63B78U
#define CRC_LONG 4096
#define CRC_SHORT 256

/* crc_bytes: the register after one more byte; crc_long, crc_short: after so many zero bytes, a byte of it at a time. */
static uint32_t crc_bytes[8][256], crc_long[4][256], crc_short[4][256];
static int crc_in_hardware;

static void crc_fill_shift(uint32_t table[4][256], size_t zeros)
{
    for (int bit = 0; bit < 32; bit++) {
        uint32_t crc = 1U << bit;
        for (size_t i = 0; i < zeros; i++)
            crc = crc_bytes[0][crc & 255] ^ (crc >> 8);
        table[bit / 8][1 << bit % 8] = crc;
    }
    for (int k = 0; k < 4; k++)
        for (int value = 1; value < 256; value++)
            table[k][value] = table[k][value & (value - 1)] ^ table[k][value & -value];
}

static void crc_prepare(void)
{
    for (uint32_t value = 0; value < 256; value++) {
        uint32_t crc = value;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? (crc >> 1) ^ CRC_POLYNOMIAL : crc >> 1;
        crc_bytes[0][value] = crc;
    }
    for (uint32_t value = 0; value < 256; value++)
        for (int k = 1; k < 8; k++)
            crc_bytes[k][value] = crc_bytes[0][crc_bytes[k - 1][value] & 255] ^ (crc_bytes[k - 1][value] >> 8);
#if defined(__x86_64__)
    __builtin_cpu_init();
    crc_in_hardware = __builtin_cpu_supports("sse4.2");
    crc_fill_shift(crc_long, CRC_LONG);
    crc_fill_shift(crc_short, CRC_SHORT);
#endif
}

static uint32_t crc_by_table(uint32_t crc, const unsigned char *data, size_t size)
{
    uint64_t word;
    for (; size >= 8; data += 8, size -= 8) {
        memcpy(&word, data, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        word = __builtin_bswap64(word);
#endif
        word ^= crc;
        crc = 0;
        for (int k = 0; k < 8; k++)
            crc ^= crc_bytes[7 - k][word >> 8 * k & 255];
    }
    while (size--)
        crc = crc_bytes[0][(crc ^ *data++) & 255] ^ (crc >> 8);
    return crc;
}

#if defined(__x86_64__)
static uint32_t crc_shifted(uint32_t table[4][256], uint32_t crc)
{
    return table[0][crc & 255] ^ table[1][crc >> 8 & 255] ^ table[2][crc >> 16 & 255] ^ table[3][crc >> 24];
}

/* One instruction takes three cycles, and three may be under way: so three stretches side by side. What comes next is
 * asked for ahead of time, as mapped values come from memory: a quarter less. */
#define CRC_THREE(STRETCH, TABLE)                                                      \
    for (; size >= 3 * STRETCH; data += 3 * STRETCH, size -= 3 * STRETCH) {            \
        uint64_t second = 0, third = 0, a, b, c;                                       \
        for (size_t line = 0; line < STRETCH; line += 64) {                            \
            __builtin_prefetch(data + line + 3 * STRETCH);                             \
            __builtin_prefetch(data + line + 4 * STRETCH);                             \
            __builtin_prefetch(data + line + 5 * STRETCH);                             \
            for (size_t i = line; i < line + 64; i += 8) {                             \
                memcpy(&a, data + i, 8);                                               \
                memcpy(&b, data + STRETCH + i, 8);                                     \
                memcpy(&c, data + 2 * STRETCH + i, 8);                                 \
                first = __builtin_ia32_crc32di(first, a);                              \
                second = __builtin_ia32_crc32di(second, b);                            \
                third = __builtin_ia32_crc32di(third, c);                              \
            }                                                                          \
        }                                                                              \
        first = crc_shifted(TABLE, (uint32_t)first) ^ second;                          \
        first = crc_shifted(TABLE, (uint32_t)first) ^ third;                           \
    }

__attribute__((target("sse4.2"))) static uint32_t crc_by_processor(uint32_t crc, const unsigned char *data, size_t size)
{
    uint64_t first = crc, word;
    CRC_THREE(CRC_LONG, crc_long)
    CRC_THREE(CRC_SHORT, crc_short)
    for (; size >= 8; data += 8, size -= 8) {
        memcpy(&word, data, 8);
        first = __builtin_ia32_crc32di(first, word);
    }
    crc = (uint32_t)first;
    while (size--)
        crc = __builtin_ia32_crc32qi(crc, *data++);
    return crc;
}
#endif

/* The original's checksum: begins with 0 and ends without inversion. */
static uint32_t crc_of(const char *data, size_t size)
{
#if defined(__x86_64__)
    if (crc_in_hardware)
        return crc_by_processor(0, (const unsigned char *)data, size);
#endif
    return crc_by_table(0, (const unsigned char *)data, size);
}

/* A mapped page that the disk cannot bring, or behind the end of a file, is SIGBUS for whoever looks at it. */
static __thread sigjmp_buf *volatile look_escape;
static struct sigaction look_before;
static int look_guarded;

static void look_failed(int number, siginfo_t *info, void *context)
{
    (void)context;
    if (look_escape && info->si_code > 0)
        siglongjmp(*look_escape, 1);
    /* Not ours: as it would have been without us. */
    sigaction(number, &look_before, NULL);
    look_guarded = 0;
    if (info->si_code <= 0)
        raise(number);
}

static int look_prepare(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = look_failed;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    look_guarded = sigaction(SIGBUS, &action, &look_before) == 0;
    return look_guarded;
}

/* Whether mapped bytes are this: a head of 18 bytes (key length, value length, offset before, checksum, flags, time),
 * the key, and a value of that checksum. 0 also where they cannot be read. */
static int look_is_record(const char *record, const char *key, uint32_t key_bytes, uint32_t value_bytes, uint32_t crc)
{
    sigjmp_buf escape;
    uint32_t length, stored;
    int same;
    if (sigsetjmp(escape, 0)) {
        look_escape = NULL;
        return 0;
    }
    look_escape = &escape;
    __asm__ volatile("" ::: "memory");
    memcpy(&length, record + 1, 4);
    memcpy(&stored, record + 9, 4);
    same = (unsigned char)record[0] == key_bytes && length == value_bytes && stored == crc && !(record[13] & 1)
        && memcmp(record + 18, key, key_bytes) == 0 && crc_of(record + 18 + key_bytes, value_bytes) == crc;
    __asm__ volatile("" ::: "memory");
    look_escape = NULL;
    return same;
}

#endif
