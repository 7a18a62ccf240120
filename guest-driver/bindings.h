/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What bindgen reads: kernel headers that the kernel crate does not bind, constants that are casts
 * (which bindgen skips), and the functions of helpers.c, helpers_fast.c and splice.c.
 */
#ifndef GLOBALFIFO_BINDINGS_H
#define GLOBALFIFO_BINDINGS_H

#include <linux/aio.h>
#include <linux/fs.h>
#include <linux/hrtimer.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/poll.h>
#include <linux/scatterlist.h>
#include <linux/sched/signal.h>
#include <linux/spinlock.h>
#include <linux/splice.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <asm/ioctls.h>
#include "include/uapi/linux/globalfifo.h"

static const unsigned int GLOBALFIFO_FIONREAD = FIONREAD;
static const unsigned int GLOBALFIFO_FIFO_CLEAR = FIFO_CLEAR;
static const unsigned int GLOBALFIFO_ALIAS_CLEAR = GLOBALFIFO_IOC_CLEAR;
static const int GLOBALFIFO_IOCB_AIO_RW = (__force int)IOCB_AIO_RW;
static const int GLOBALFIFO_IOCB_NOWAIT = (__force int)IOCB_NOWAIT;
static const int GLOBALFIFO_IOCB_DSYNC = (__force int)IOCB_DSYNC;
static const fmode_t GLOBALFIFO_FMODE_READ = FMODE_READ;
static const fmode_t GLOBALFIFO_FMODE_WRITE = FMODE_WRITE;
static const fmode_t GLOBALFIFO_FMODE_NOWAIT = FMODE_NOWAIT;
static const fmode_t GLOBALFIFO_FMODE_CAN_ODIRECT = FMODE_CAN_ODIRECT;
static const unsigned int GLOBALFIFO_EPOLLIN = (__force unsigned int)EPOLLIN;
static const unsigned int GLOBALFIFO_EPOLLOUT = (__force unsigned int)EPOLLOUT;
static const unsigned int GLOBALFIFO_EPOLLERR = (__force unsigned int)EPOLLERR;
static const unsigned int GLOBALFIFO_EPOLLHUP = (__force unsigned int)EPOLLHUP;
static const unsigned int GLOBALFIFO_EPOLLRDNORM = (__force unsigned int)EPOLLRDNORM;
static const unsigned int GLOBALFIFO_EPOLLWRNORM = (__force unsigned int)EPOLLWRNORM;
static const unsigned int GLOBALFIFO_EPOLLRDHUP = (__force unsigned int)EPOLLRDHUP;
static const unsigned int GLOBALFIFO_TASK_INTERRUPTIBLE = TASK_INTERRUPTIBLE | TASK_FREEZABLE;
static const unsigned int GLOBALFIFO_TASK_KILLABLE = TASK_KILLABLE | TASK_FREEZABLE;
static const unsigned int GLOBALFIFO_TASK_KILLABLE_AWAKE = TASK_KILLABLE;
static const unsigned int GLOBALFIFO_HRTIMER_NORESTART = HRTIMER_NORESTART;
static const unsigned int GLOBALFIFO_TASK_UNINTERRUPTIBLE = TASK_UNINTERRUPTIBLE;

/* helpers.c */
int globalfifo_find_vqs(struct virtio_device *vdev, unsigned int count, const char *const *names,
			struct virtqueue **vqs, void (*callback)(struct virtqueue *vq));
void globalfifo_device_ready(struct virtio_device *vdev);
bool globalfifo_has_feature(const struct virtio_device *vdev, unsigned int bit);
void globalfifo_del_vqs(struct virtio_device *vdev);
int globalfifo_get_config_u32(struct virtio_device *vdev, unsigned int offset, void *buf);
int globalfifo_add_out(struct virtqueue *vq, void *buf, unsigned int len, void *token, gfp_t gfp);
int globalfifo_add_in(struct virtqueue *vq, void *buf, unsigned int len, void *token, gfp_t gfp);
int globalfifo_add_request(struct virtqueue *vq, void *out, unsigned int out_len, void *in,
			   unsigned int in_len, void *token, gfp_t gfp);
dev_t globalfifo_devt(unsigned int major, unsigned int minor);
struct device *globalfifo_create_node(const struct class *class, struct device *parent, dev_t devt,
				      const char *name);
int globalfifo_dup_iter(struct iov_iter *copy, struct iov_iter *from, const void **vector);
bool globalfifo_mm_is_inhabited(const struct mm_struct *mm);
bool globalfifo_use_mm(struct mm_struct *mm);
struct workqueue_struct *globalfifo_alloc_workqueue(const char *name, bool high, bool freezable);
void globalfifo_device_lock(struct device *dev);
void globalfifo_device_unlock(struct device *dev);
void globalfifo_nofault_begin(void);
void globalfifo_nofault_end(void);
bool globalfifo_need_resched(void);
void globalfifo_get_module(void);
void globalfifo_put_module(void);
void *globalfifo_current_files(void);
bool globalfifo_has_descriptor(struct file *file, fl_owner_t owner);
bool globalfifo_opener_may_write(struct file *file);
void globalfifo_spin_lock_irq(spinlock_t *lock);
bool globalfifo_spin_trylock_irq(spinlock_t *lock);
void globalfifo_spin_unlock_irq(spinlock_t *lock);

/* splice.c */
ssize_t globalfifo_splice_read(struct file *in, struct pipe_inode_info *pipe, size_t len,
			       unsigned int flags, int (*wait)(struct file *, bool));
ssize_t globalfifo_splice_write(struct pipe_inode_info *pipe, struct file *out, size_t len,
				unsigned int flags, int (*wait)(struct file *, bool));

/* helpers_fast.c */
int globalfifo_add_out_pair(struct virtqueue *vq, void *first, unsigned int first_len, void *second,
			    unsigned int second_len, void *token, gfp_t gfp);
int globalfifo_add_out_table(struct virtqueue *vq, void *buf, unsigned int len,
			     struct sg_table *table, void *token, gfp_t gfp);
ssize_t globalfifo_pin_pages(struct iov_iter *from, struct page ***pages, size_t len,
			     unsigned int count, size_t *offset, bool present);
bool globalfifo_runs_in_tcg(void);
unsigned long globalfifo_iter_address(const struct iov_iter *iter);
int globalfifo_pin_at_hand(unsigned long start, int count, struct page **pages);
bool globalfifo_page_is_small_and_anonymous(struct page *page);
void globalfifo_mark_dirty(struct page *page);
bool globalfifo_page_is_mapped(struct page *page);
bool globalfifo_relax(void);
bool globalfifo_others_want_cpu(void);
void globalfifo_preempt_disable(void);
void globalfifo_preempt_enable(void);
bool globalfifo_mappings_begin(struct mm_struct *mm, unsigned int *seq);
bool globalfifo_mappings_changed(struct mm_struct *mm, unsigned int seq);

#endif
