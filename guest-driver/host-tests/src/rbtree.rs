// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for `kernel::rbtree`, on an ordered map. Counts the steps of walks: [`world::steps`].

use crate::alloc::{AllocError, Flags};
use crate::world;
use std::collections::BTreeMap;
use std::ops::Bound;

/// As in the kernel crate.
#[derive(Debug)]
pub struct RBTree<K, V>(BTreeMap<K, V>);

/// A node that is in no tree.
#[derive(Debug)]
pub struct RBTreeNode<K, V>(K, V);

/// Memory for a node.
#[derive(Debug)]
pub struct RBTreeNodeReservation<K, V>(std::marker::PhantomData<(K, V)>);

impl<K, V> RBTreeNodeReservation<K, V> {
    /// As in the kernel crate.
    pub fn new(_flags: Flags) -> Result<Self, AllocError> {
        Ok(Self(std::marker::PhantomData))
    }

    /// As in the kernel crate.
    pub fn into_node(self, key: K, value: V) -> RBTreeNode<K, V> {
        RBTreeNode(key, value)
    }
}

impl<K, V> RBTreeNode<K, V> {
    /// As in the kernel crate.
    pub fn to_key_value(self) -> (K, V) {
        (self.0, self.1)
    }
}

impl<K: Ord + Copy, V> RBTree<K, V> {
    /// As in the kernel crate.
    pub fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// As in the kernel crate.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As in the kernel crate.
    ///
    /// # Panics
    ///
    /// If there is one with that key: the driver's keys are used once.
    pub fn insert(&mut self, node: RBTreeNode<K, V>) {
        let before = self.0.insert(node.0, node.1);
        assert!(before.is_none(), "two nodes with one key");
    }

    /// As in the kernel crate.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key)
    }

    /// As in the kernel crate.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0.get_mut(key)
    }

    /// As in the kernel crate.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.0.remove(key)
    }

    /// As in the kernel crate.
    pub fn remove_node(&mut self, key: &K) -> Option<RBTreeNode<K, V>> {
        self.0
            .remove_entry(key)
            .map(|(key, value)| RBTreeNode(key, value))
    }

    /// As in the kernel crate.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.keys().inspect(|_| world::step())
    }

    /// As in the kernel crate.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.0.iter_mut().inspect(|_| world::step())
    }

    /// As in the kernel crate.
    pub fn cursor_front(&self) -> Option<Cursor<'_, K, V>> {
        let at = *self.0.first_key_value()?.0;
        Some(Cursor::new(&self.0, at))
    }

    /// As in the kernel crate.
    pub fn cursor_front_mut(&mut self) -> Option<CursorMut<'_, K, V>> {
        let at = *self.0.first_key_value()?.0;
        Some(CursorMut::new(&mut self.0, at))
    }

    /// As in the kernel crate.
    pub fn cursor_back_mut(&mut self) -> Option<CursorMut<'_, K, V>> {
        let at = *self.0.last_key_value()?.0;
        Some(CursorMut::new(&mut self.0, at))
    }

    /// As in the kernel crate.
    pub fn cursor_lower_bound(&self, key: &K) -> Option<Cursor<'_, K, V>> {
        let at = *self.0.range(key..).next()?.0;
        Some(Cursor::new(&self.0, at))
    }

    /// As in the kernel crate.
    pub fn cursor_lower_bound_mut(&mut self, key: &K) -> Option<CursorMut<'_, K, V>> {
        let at = *self.0.range(key..).next()?.0;
        Some(CursorMut::new(&mut self.0, at))
    }
}

/// A place in a tree.
#[derive(Debug)]
pub struct Cursor<'a, K, V> {
    tree: &'a BTreeMap<K, V>,
    at: K,
}

impl<'a, K: Ord + Copy, V> Cursor<'a, K, V> {
    fn new(tree: &'a BTreeMap<K, V>, at: K) -> Self {
        world::step();
        Self { tree, at }
    }

    /// As in the kernel crate.
    pub fn current(&self) -> (&K, &V) {
        self.tree
            .get_key_value(&self.at)
            .expect("the cursor's node is there")
    }
}

/// A place in a tree that can be changed there.
#[derive(Debug)]
pub struct CursorMut<'a, K, V> {
    tree: &'a mut BTreeMap<K, V>,
    at: K,
}

impl<'a, K: Ord + Copy, V> CursorMut<'a, K, V> {
    fn new(tree: &'a mut BTreeMap<K, V>, at: K) -> Self {
        world::step();
        Self { tree, at }
    }

    fn next(&self) -> Option<K> {
        let behind = (Bound::Excluded(self.at), Bound::Unbounded);
        self.tree.range(behind).next().map(|(key, _)| *key)
    }

    fn prev(&self) -> Option<K> {
        self.tree.range(..self.at).next_back().map(|(key, _)| *key)
    }

    /// As in the kernel crate.
    pub fn current(&self) -> (&K, &V) {
        self.tree
            .get_key_value(&self.at)
            .expect("the cursor's node is there")
    }

    /// As in the kernel crate.
    pub fn current_mut(&mut self) -> (&K, &mut V) {
        let value = self
            .tree
            .get_mut(&self.at)
            .expect("the cursor's node is there");
        (&self.at, value)
    }

    /// As in the kernel crate.
    pub fn move_next(self) -> Option<Self> {
        let at = self.next()?;
        Some(Self::new(self.tree, at))
    }

    /// As in the kernel crate.
    pub fn move_prev(self) -> Option<Self> {
        let at = self.prev()?;
        Some(Self::new(self.tree, at))
    }

    /// As in the kernel crate: a cursor to the next node, or the one before the last.
    pub fn remove_current(self) -> (Option<Self>, RBTreeNode<K, V>) {
        let neighbour = self.next().or_else(|| self.prev());
        let (key, value) = self
            .tree
            .remove_entry(&self.at)
            .expect("the cursor's node is there");
        let cursor = neighbour.map(|at| Self::new(self.tree, at));
        (cursor, RBTreeNode(key, value))
    }
}
