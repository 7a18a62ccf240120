// SPDX-License-Identifier: GPL-2.0-only
/*
 * Shims around macros and inline functions, so that Rust can call them. No logic here: whatever
 * decides anything belongs in Rust. Those of the fast edition are in helpers_fast.c.
 */
#include <linux/cred.h>
#include <linux/device.h>
#include <linux/fdtable.h>
#include <linux/fs.h>
#include <linux/kdev_t.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <linux/workqueue.h>

#include "bindings.h"

int globalfifo_find_vqs(struct virtio_device *vdev, unsigned int count, const char *const *names,
			struct virtqueue **vqs, void (*callback)(struct virtqueue *vq))
{
	struct virtqueue_info *info;
	unsigned int i;
	int err;

	info = kcalloc(count, sizeof(*info), GFP_KERNEL);
	if (!info)
		return -ENOMEM;

	for (i = 0; i < count; i++) {
		info[i].name = names[i];
		info[i].callback = callback;
	}

	err = virtio_find_vqs(vdev, count, vqs, info, NULL);
	kfree(info);
	return err;
}

void globalfifo_device_ready(struct virtio_device *vdev)
{
	virtio_device_ready(vdev);
}

bool globalfifo_has_feature(const struct virtio_device *vdev, unsigned int bit)
{
	/* Before features are negotiated, the core has put in here what the device offers. */
	return __virtio_test_bit(vdev, bit);
}

void globalfifo_del_vqs(struct virtio_device *vdev)
{
	vdev->config->del_vqs(vdev);
}

int globalfifo_get_config_u32(struct virtio_device *vdev, unsigned int offset, void *buf)
{
	if (!vdev->config->get)
		return -ENXIO;

	/* Not virtio_cread_bytes(): it repeats for as long as the device changes something. */
	vdev->config->get(vdev, offset, buf, sizeof(u32));
	return 0;
}

int globalfifo_add_out(struct virtqueue *vq, void *buf, unsigned int len, void *token, gfp_t gfp)
{
	struct scatterlist sg;

	sg_init_one(&sg, buf, len);
	return virtqueue_add_outbuf(vq, &sg, 1, token, gfp);
}

int globalfifo_add_in(struct virtqueue *vq, void *buf, unsigned int len, void *token, gfp_t gfp)
{
	struct scatterlist sg;

	sg_init_one(&sg, buf, len);
	return virtqueue_add_inbuf(vq, &sg, 1, token, gfp);
}

int globalfifo_add_request(struct virtqueue *vq, void *out, unsigned int out_len, void *in,
			   unsigned int in_len, void *token, gfp_t gfp)
{
	struct scatterlist out_sg, in_sg, *sgs[] = { &out_sg, &in_sg };

	sg_init_one(&out_sg, out, out_len);
	sg_init_one(&in_sg, in, in_len);
	return virtqueue_add_sgs(vq, sgs, 1, 1, token, gfp);
}

dev_t globalfifo_devt(unsigned int major, unsigned int minor)
{
	return MKDEV(major, minor);
}

struct device *globalfifo_create_node(const struct class *class, struct device *parent, dev_t devt,
				      const char *name)
{
	return device_create(class, parent, devt, NULL, "%s", name);
}

int globalfifo_dup_iter(struct iov_iter *copy, struct iov_iter *from, const void **vector)
{
	if (!user_backed_iter(from))
		return -EINVAL;

	*vector = dup_iter(copy, from, GFP_KERNEL_ACCOUNT);
	return iter_is_iovec(copy) && !*vector ? -ENOMEM : 0;
}

/* Whether a process lives in @mm: no more after its end, or its exec. */
bool globalfifo_mm_is_inhabited(const struct mm_struct *mm)
{
#ifdef CONFIG_MEMCG
	return READ_ONCE(mm->owner);
#else
	return atomic_read(&mm->mm_users);
#endif
}

bool globalfifo_use_mm(struct mm_struct *mm)
{
	if (WARN_ON_ONCE(!(current->flags & PF_KTHREAD) || current->mm))
		return false;

	kthread_use_mm(mm);
	return true;
}

struct workqueue_struct *globalfifo_alloc_workqueue(const char *name, bool high, bool freezable)
{
	unsigned int flags = WQ_UNBOUND | (high ? WQ_HIGHPRI : 0) | (freezable ? WQ_FREEZABLE : 0);

	return alloc_workqueue("%s", flags, 0, name);
}

void globalfifo_device_lock(struct device *dev)
{
	device_lock(dev);
}

void globalfifo_device_unlock(struct device *dev)
{
	device_unlock(dev);
}

/* Page faults off. Without PREEMPT_RT preemption too: others may wait for the end of this. */
void globalfifo_nofault_begin(void)
{
	pagefault_disable();
	if (!IS_ENABLED(CONFIG_PREEMPT_RT))
		preempt_disable();
}

void globalfifo_nofault_end(void)
{
	if (!IS_ENABLED(CONFIG_PREEMPT_RT))
		preempt_enable();
	pagefault_enable();
}

bool globalfifo_need_resched(void)
{
	return need_resched();
}

void globalfifo_get_module(void)
{
	__module_get(THIS_MODULE);
}

void globalfifo_put_module(void)
{
	module_put(THIS_MODULE);
}

void *globalfifo_current_files(void)
{
	return current->files;
}

static int is_file(const void *wanted, struct file *file, unsigned int fd)
{
	return file == wanted;
}

/* Whether the current task has descriptors of @file; not if another (@owner) closes one. */
bool globalfifo_has_descriptor(struct file *file, fl_owner_t owner)
{
	return owner == current->files && iterate_fd(current->files, 0, is_file, file);
}

bool globalfifo_opener_may_write(struct file *file)
{
	const struct cred *old = override_creds(file->f_cred);
	int err = file_permission(file, MAY_WRITE);

	revert_creds(old);
	return !err;
}

/* For kernels without spin_lock_irq_disable(): kapi/lock.rs. */
#ifndef raw_spin_lock_irq_disable

#ifdef CONFIG_PREEMPT_RT
static void irq_off(void) { }
static void irq_on(void) { }
#else
/* Locks that this CPU holds, and its interrupts before the first: guards go in any order. */
struct irq_state {
	unsigned int depth;
	unsigned long flags;
};

static DEFINE_PER_CPU(struct irq_state, irq_state);

static void irq_off(void)
{
	struct irq_state *state;
	unsigned long flags;

	local_irq_save(flags);
	/* A preemption that comes due waits until interrupts are on again. */
	preempt_disable();
	state = this_cpu_ptr(&irq_state);
	if (!state->depth++)
		state->flags = flags;
}

static void irq_on(void)
{
	struct irq_state *state = this_cpu_ptr(&irq_state);

	if (!--state->depth)
		local_irq_restore(state->flags);
	preempt_enable();
}
#endif

void globalfifo_spin_lock_irq(spinlock_t *lock)
{
	irq_off();
	spin_lock(lock);
}

bool globalfifo_spin_trylock_irq(spinlock_t *lock)
{
	irq_off();
	if (spin_trylock(lock))
		return true;
	irq_on();
	return false;
}

void globalfifo_spin_unlock_irq(spinlock_t *lock)
{
	spin_unlock(lock);
	irq_on();
}

#endif
