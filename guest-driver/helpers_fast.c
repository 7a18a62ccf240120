// SPDX-License-Identifier: GPL-2.0-only
/*
 * Shims that only the fast edition needs. No logic here.
 */
#include <linux/bvec.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/preempt.h>
#include <linux/scatterlist.h>
#include <linux/sched/signal.h>
#include <linux/uio.h>
#include <linux/userfaultfd_k.h>

#ifdef CONFIG_X86
#include <linux/cpufeature.h>
#include <asm/cpuid/api.h>
#endif

#include "bindings.h"

int globalfifo_add_out_pair(struct virtqueue *vq, void *first, unsigned int first_len, void *second,
			    unsigned int second_len, void *token, gfp_t gfp)
{
	struct scatterlist first_sg, second_sg, *sgs[] = { &first_sg, &second_sg };

	sg_init_one(&first_sg, first, first_len);
	sg_init_one(&second_sg, second, second_len);
	return virtqueue_add_sgs(vq, sgs, 2, 0, token, gfp);
}

int globalfifo_add_out_table(struct virtqueue *vq, void *buf, unsigned int len,
			     struct sg_table *table, void *token, gfp_t gfp)
{
	struct scatterlist sg, *sgs[] = { &sg, table->sgl };

	sg_init_one(&sg, buf, len);
	return virtqueue_add_sgs(vq, sgs, 2, 0, token, gfp);
}

ssize_t globalfifo_pin_pages(struct iov_iter *from, struct page ***pages, size_t len,
			     unsigned int count, size_t *offset, bool present)
{
	bool nofault = from->nofault;
	ssize_t ret;

	/* Those of the kernel are not pinned, and belong to whoever has them. */
	if (!iov_iter_extract_will_pin(from))
		return -EINVAL;

	from->nofault = present;
	ret = iov_iter_extract_pages(from, pages, len, count, 0, offset);
	from->nofault = nofault;
	return ret;
}

bool globalfifo_runs_in_tcg(void)
{
#ifdef CONFIG_X86
	return boot_cpu_has(X86_FEATURE_HYPERVISOR) && cpuid_base_hypervisor("TCGTCGTCGTCG", 0);
#else
	return false;
#endif
}

unsigned long globalfifo_iter_address(const struct iov_iter *iter)
{
	return (unsigned long)iter_iov_addr(iter);
}

int globalfifo_pin_at_hand(unsigned long start, int count, struct page **pages)
{
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma;
	struct vma_iterator vmi;
	bool watched = false;
	long got;

	/* Whoever has it for writing may wait for something. */
	if (!mmap_read_trylock(mm))
		return -EAGAIN;
	/* Its user is told of accesses, and may forbid writing without a change of mappings. */
	vma_iter_init(&vmi, mm, start);
	for_each_vma_range(vmi, vma, start + count * PAGE_SIZE)
		watched |= userfaultfd_armed(vma);
	got = watched ? -EAGAIN :
		pin_user_pages(start, count, FOLL_WRITE | FOLL_LONGTERM | FOLL_NOFAULT, pages);
	mmap_read_unlock(mm);
	return got;
}

bool globalfifo_page_is_small_and_anonymous(struct page *page)
{
	return PageAnon(page) && !PageCompound(page);
}

void globalfifo_mark_dirty(struct page *page)
{
	SetPageDirty(page);
}

bool globalfifo_page_is_mapped(struct page *page)
{
	return folio_mapped(page_folio(page));
}

bool globalfifo_relax(void)
{
	cpu_relax();
	return need_resched() || signal_pending(current);
}

bool globalfifo_others_want_cpu(void)
{
	return need_resched() || tif_test_bit(TIF_NEED_RESCHED_LAZY);
}

void globalfifo_preempt_disable(void)
{
	preempt_disable();
}

void globalfifo_preempt_enable(void)
{
	preempt_enable();
}

/* Value that changes with every change of the mappings of @mm; false during a change. */
bool globalfifo_mappings_begin(struct mm_struct *mm, unsigned int *seq)
{
	return mmap_lock_speculate_try_begin(mm, seq);
}

bool globalfifo_mappings_changed(struct mm_struct *mm, unsigned int seq)
{
	return mmap_lock_speculate_retry(mm, seq);
}
