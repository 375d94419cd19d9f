/* A strict stand-in for libcuda.so.1, for tests of the order of work.
 *
 * Nothing happens before cuStreamSynchronize. Copies are checked against live allocations, host
 * memory has to be pinned, freed memory is poisoned and never given out again, captured graphs keep
 * the addresses that they were captured with. Whatever a real driver would let corrupt memory is
 * counted as a violation. fake_host_function stands for the kernels of an engine.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <time.h>

#define MAX 65536
#define PINNED 1
#define DEVICE 2
#define MAPPED 4 /* how the GPU sees pinned memory: at another address, and not to be copied to the host */
#define INVALID_VALUE 1
#define OUT_OF_MEMORY 2
#define INVALID_CONTEXT 201
#define INVALID_HANDLE 400
#define NOT_READY 600
#define NOT_PERMITTED 900

typedef struct { char *start; size_t size; int kind, live; } Block;
typedef struct { int recorded; double passed; } Event;
typedef struct { int kind; char *target, *source; size_t size; void (*call)(void *); void *data; } Op;
typedef struct { Op ops[256]; int count; } List;
typedef struct { List queue, recording; int capturing, broken; } Stream;

static Block blocks[MAX];
static int block_count, violations, streams, graphs, executables, contexts, events;
static char message[512];
static char failing[64];
static int failing_after, failing_status;
static __thread int current;

int fake_violations(void) { return violations; }
const char *fake_message(void) { return message; }
int fake_live(void) {
    int live = streams + graphs + executables + contexts + events;
    for (int i = 0; i < block_count; i++) live += blocks[i].live;
    return live;
}
/* The call number `after` (from 0 on) of a function fails with a status, once. */
void fake_fail(const char *name, int after, int status) {
    snprintf(failing, sizeof failing, "%s", name);
    failing_after = after; failing_status = status;
}
static int fails(const char *name) {
    if (strcmp(name, failing) || failing_after-- > 0) return 0;
    failing[0] = 0;
    return failing_status;
}
static void violate(const char *what) {
    violations++;
    snprintf(message, sizeof message, "%s", what);
}
#define ENTER(name) { int status = fails(name); if (status) return status; \
    if (!current) return INVALID_CONTEXT; }

static Block *find(const void *address, size_t size, int kind) {
    for (int i = 0; i < block_count; i++) {
        Block *b = blocks + i;
        if ((char *)address >= b->start && (char *)address + size <= b->start + b->size)
            return b->live && (b->kind & kind) ? b : NULL;
    }
    return NULL;
}
int fake_is_device(const void *address, size_t size) { return find(address, size, DEVICE | MAPPED) != NULL; }

int cuInit(unsigned flags) { return fails("cuInit"); }
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int cuGetErrorString(int status, const char **text) {
    *text = status == OUT_OF_MEMORY ? "out of memory" : "fake failure";
    return 0;
}
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "Orin"); return 0; }
static int discrete;
void fake_own_memory(void) { discrete = 1; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (attribute == 18 && discrete) { *value = 0; return 0; }
    *value = attribute == 16 ? 8 : attribute == 18 ? 1 : attribute == 75 ? 8 : 7;
    return 0;
}
static unsigned context_flags;
int cuDevicePrimaryCtxSetFlags_v2(int device, unsigned flags) {
    if (contexts) return 708;
    context_flags = flags;
    return 0;
}
int fake_context_flags(void) { return (int)context_flags; }
int cuDevicePrimaryCtxRetain(void **context, int device) {
    int status = fails("cuDevicePrimaryCtxRetain");
    if (status) return status;
    contexts++; *context = (void *)(intptr_t)(device + 1);
    return 0;
}
int cuDevicePrimaryCtxRelease_v2(int device) { contexts--; return 0; }
int cuCtxSetCurrent(void *context) { current = (int)(intptr_t)context; return 0; }
int fake_current_device(void) { return current - 1; }

static int take(void **address, size_t size, int kind) {
    if (!size) return INVALID_VALUE;
    if (block_count == MAX) return OUT_OF_MEMORY;
    char *start = aligned_alloc(256, (size + 255) / 256 * 256);
    memset(start, 0xAA, size);
    blocks[block_count++] = (Block){start, size, kind, 1};
    *address = start;
    return 0;
}
static int give(void *address, int kind) {
    for (int i = 0; i < block_count; i++)
        if (blocks[i].start == address && blocks[i].kind == kind && blocks[i].live) {
            memset(address, 0xDD, blocks[i].size);
            blocks[i].live = 0;
            return 0;
        }
    violate("memory is freed twice, or is not the driver's");
    return INVALID_VALUE;
}
int cuMemAlloc_v2(void **address, size_t size) { ENTER("cuMemAlloc_v2") return take(address, size, DEVICE); }
int cuMemFree_v2(void *address) { ENTER("cuMemFree_v2") return give(address, DEVICE); }
int cuMemGetInfo_v2(size_t *available, size_t *total) { /* of a GPU with 1 GiB */
    ENTER("cuMemGetInfo_v2")
    *available = *total = (size_t)1 << 30;
    for (int i = 0; i < block_count; i++)
        if (blocks[i].live && blocks[i].kind == DEVICE) *available -= blocks[i].size;
    return 0;
}
int cuMemHostAlloc(void **address, size_t size, unsigned flags) {
    ENTER("cuMemHostAlloc")
    if (flags != 2) return take(address, size, PINNED);
    if (!size) return INVALID_VALUE;
    if (block_count + 2 > MAX) return OUT_OF_MEMORY;
    int file = memfd_create("pinned", 0);
    if (file < 0 || ftruncate(file, size)) return OUT_OF_MEMORY;
    for (int kind = PINNED; kind <= MAPPED; kind += MAPPED - PINNED) {
        char *start = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (start == MAP_FAILED) return OUT_OF_MEMORY;
        blocks[block_count++] = (Block){start, size, kind, 1};
        if (kind == PINNED) *address = memset(start, 0xAA, size);
    }
    close(file);
    return 0;
}
int cuMemHostGetDevicePointer_v2(void **address, void *host, unsigned flags) {
    ENTER("cuMemHostGetDevicePointer_v2")
    for (int i = 0; i + 1 < block_count; i++)
        if (blocks[i].start == host && blocks[i].live && blocks[i + 1].kind == MAPPED) {
            *address = blocks[i + 1].start;
            return 0;
        }
    return INVALID_VALUE;
}
int cuMemFreeHost(void *address) {
    ENTER("cuMemFreeHost")
    for (int i = 0; i + 1 < block_count; i++)
        if (blocks[i].start == address && blocks[i + 1].kind == MAPPED) blocks[i + 1].live = 0;
    return give(address, PINNED);
}

int cuStreamCreate(Stream **stream, unsigned flags) {
    ENTER("cuStreamCreate")
    *stream = calloc(1, sizeof **stream); streams++;
    return 0;
}
int cuStreamDestroy_v2(Stream *stream) {
    ENTER("cuStreamDestroy_v2")
    if (stream->queue.count) violate("a stream with queued work is destroyed");
    streams--; free(stream);
    return 0;
}
static int put(Stream *stream, Op op) {
    List *list = stream->capturing ? &stream->recording : &stream->queue;
    if (list->count == 256) { violate("too much is queued"); return INVALID_VALUE; }
    list->ops[list->count++] = op;
    return 0;
}
static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec * 1e-6;
}
int cuEventCreate(Event **event, unsigned flags) {
    ENTER("cuEventCreate")
    *event = calloc(1, sizeof **event); events++;
    return 0;
}
int cuEventDestroy_v2(Event *event) { ENTER("cuEventDestroy_v2") events--; free(event); return 0; }
int cuEventRecord(Event *event, Stream *stream) {
    ENTER("cuEventRecord")
    event->passed = 0; event->recorded = 1;
    return put(stream, (Op){4, (char *)event, 0, 0, 0, 0});
}
int cuEventElapsedTime(float *milliseconds, Event *first, Event *second) {
    ENTER("cuEventElapsedTime")
    if (!first->recorded || !second->recorded) return INVALID_HANDLE;
    if (!first->passed || !second->passed) return NOT_READY;
    *milliseconds = second->passed - first->passed;
    return 0;
}
int cuStreamSynchronize(Stream *stream) {
    ENTER("cuStreamSynchronize")
    if (stream->capturing) { stream->broken = 1; return NOT_PERMITTED; }
    for (int i = 0; i < stream->queue.count; i++) {
        Op *op = stream->queue.ops + i;
        if (op->call) { op->call(op->data); continue; }
        if (op->kind == 4) { ((Event *)op->target)->passed = now_ms(); continue; }
        /* HtoD 1, DtoH 2, DtoD 3 */
        if (!find(op->target, op->size, op->kind == 2 ? PINNED : DEVICE)) {
            violate("a copy writes outside of live memory"); continue;
        }
        if (!find(op->source, op->size, op->kind == 1 ? PINNED : op->kind == 2 ? DEVICE : DEVICE | MAPPED)) {
            violate("a copy reads outside of live memory"); continue;
        }
        memcpy(op->target, op->source, op->size);
    }
    stream->queue.count = 0;
    return 0;
}
int cuMemcpyHtoDAsync_v2(char *target, char *source, size_t size, Stream *stream) {
    ENTER("cuMemcpyHtoDAsync_v2") return put(stream, (Op){1, target, source, size, 0, 0});
}
int cuMemcpyDtoHAsync_v2(char *target, char *source, size_t size, Stream *stream) {
    ENTER("cuMemcpyDtoHAsync_v2") return put(stream, (Op){2, target, source, size, 0, 0});
}
int cuMemcpyDtoDAsync_v2(char *target, char *source, size_t size, Stream *stream) {
    ENTER("cuMemcpyDtoDAsync_v2") return put(stream, (Op){3, target, source, size, 0, 0});
}
int fake_host_function(Stream *stream, void (*call)(void *), void *data) {
    ENTER("fake_host_function") return put(stream, (Op){0, 0, 0, 0, call, data});
}
int cuStreamBeginCapture_v2(Stream *stream, int mode) {
    ENTER("cuStreamBeginCapture_v2")
    if (stream->capturing || mode != 1) return INVALID_VALUE;
    stream->capturing = 1; stream->broken = 0; stream->recording.count = 0;
    return 0;
}
int cuStreamEndCapture(Stream *stream, List **graph) {
    *graph = NULL;
    if (!stream->capturing) return INVALID_VALUE;
    stream->capturing = 0;
    ENTER("cuStreamEndCapture")
    if (stream->broken) return NOT_PERMITTED;
    *graph = malloc(sizeof **graph); **graph = stream->recording; graphs++;
    return 0;
}
int cuGraphInstantiateWithFlags(List **executable, List *graph, unsigned long long flags) {
    ENTER("cuGraphInstantiateWithFlags")
    *executable = malloc(sizeof **executable); **executable = *graph; executables++;
    return 0;
}
int cuGraphDestroy(List *graph) { ENTER("cuGraphDestroy") graphs--; free(graph); return 0; }
int cuGraphExecDestroy(List *graph) { ENTER("cuGraphExecDestroy") executables--; free(graph); return 0; }
int cuGraphLaunch(List *graph, Stream *stream) {
    ENTER("cuGraphLaunch")
    if (stream->capturing) { stream->broken = 1; return NOT_PERMITTED; }
    for (int i = 0; i < graph->count; i++) {
        int status = put(stream, graph->ops[i]);
        if (status) return status;
    }
    return 0;
}
