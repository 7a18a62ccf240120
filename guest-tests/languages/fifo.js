// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

// A FIFO from Node: fs waits in one of libuv's threads, of which there are four; a pipe from a child polls. Ends with PASS, or an exception.
//
//     cargo lab run --install nodejs --mem 2G --share guest-tests/languages -- node fifo.js
'use strict';

const assert = require('node:assert');
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const { promisify } = require('node:util');

const path = '/dev/globalfifo0';
const read = promisify(fs.read);
const write = promisify(fs.write);

async function thread() {
	const fd = fs.openSync(path, 'r+');
	const buffer = Buffer.alloc(100);
	// The position has to be null: a FIFO has none.
	const waiting = read(fd, buffer, 0, 100, null);
	await write(fd, 'to the thread');
	const { bytesRead } = await waiting;
	assert.equal(buffer.toString('utf8', 0, bytesRead), 'to the thread');
	console.log('fs.read: waits in a thread of the pool, and gets what is there');
	fs.closeSync(fd);
}

async function nonblocking() {
	const fd = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_NONBLOCK);
	assert.throws(() => fs.readSync(fd, Buffer.alloc(1)), { code: 'EAGAIN' });
	console.log('O_NONBLOCK: a read that would wait is EAGAIN');
	assert.throws(() => new net.Socket({ fd }), { code: 'ERR_INVALID_FD_TYPE' });
	console.log('net.Socket: takes no device, so that nothing polls it');
	fs.closeSync(fd);
}

async function child() {
	const cat = spawn('cat', [path], { stdio: ['ignore', 'pipe', 'inherit'] });
	const arrived = new Promise((resolve) => cat.stdout.once('data', resolve));
	const fd = fs.openSync(path, 'w');
	await write(fd, 'through a pipe');
	assert.equal(String(await arrived), 'through a pipe');
	console.log('a child that copies to a pipe: polled, takes no thread of the pool');
	fs.closeSync(fd);
	cat.kill();
}

(async () => {
	await thread();
	await nonblocking();
	await child();
	console.log('PASS');
})();
