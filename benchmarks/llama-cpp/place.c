/* Preload for llama.cpp's CPU library, whose prebuilt binary starts its second thread anew for every graph:
 * a thread started from libggml-cpu begins on another core than its creator, instead of where the kernel
 * happens to put it (which on two cores is often the creator's own, so that both wait for each other).
 *
 *   gcc -O2 -shared -fPIC place.c -o place.so && LD_PRELOAD=./place.so node benchmarks/llama-cpp/bench.mjs
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

int pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*f)(void *), void *arg) {
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!real) real = (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *)) dlsym(RTLD_NEXT, "pthread_create");
    Dl_info from;
    if (!attr && dladdr(__builtin_return_address(0), &from) && from.dli_fname && strstr(from.dli_fname, "libggml-cpu")) {
        cpu_set_t set;
        if (!sched_getaffinity(0, sizeof set, &set)) CPU_CLR(sched_getcpu(), &set);
        if (CPU_COUNT(&set) > 0) {
            pthread_attr_t placed;
            pthread_attr_init(&placed);
            pthread_attr_setaffinity_np(&placed, sizeof set, &set);
            int r = real(t, &placed, f, arg);
            pthread_attr_destroy(&placed);
            return r;
        }
    }
    return real(t, attr, f, arg);
}
