/* The functions of _pure.py once more, for installs with a C compiler: the same results for the same arguments.

   They take and give Python objects, keep nothing between calls but a type for each interpreter, and share nothing
   between threads or interpreters: `messages` of take_plain_frames() belongs to its caller, the buffers are held while
   they are looked at. Built against the limited API of 3.11, the first with the buffer protocol in it, so that one
   build serves every later CPython; setup.py leaves the limit out where there is none (3.10, and builds without the
   GIL). */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

/* While so much is masked other threads may run; for less, giving up the GIL costs more than the masking does. */
#define WORTH_RELEASING (256 * 1024)

enum { KEY = 4, LONGEST_HEADER = 10 + KEY };

/* target = source XOR the repeated key. Words of eight bytes, which compilers turn into vectors; memcpy() because
   neither side need be aligned. */
static void
mask(unsigned char *target, const unsigned char *source, Py_ssize_t size, const unsigned char *key)
{
    uint64_t pad;
    Py_ssize_t at = 0;
    memcpy(&pad, key, KEY);
    memcpy((unsigned char *)&pad + KEY, key, KEY);
    for (; at + 8 <= size; at += 8) {
        uint64_t word;
        memcpy(&word, source + at, 8);
        word ^= pad;
        memcpy(target + at, &word, 8);
    }
    for (; at < size; at++) {
        target[at] = source[at] ^ key[at & 3];
    }
}

static void
mask_releasing(unsigned char *target, const unsigned char *source, Py_ssize_t size, const unsigned char *key)
{
    if (size < WORTH_RELEASING) {
        mask(target, source, size, key);
        return;
    }
    Py_BEGIN_ALLOW_THREADS
    mask(target, source, size, key);
    Py_END_ALLOW_THREADS
}

/* Whether a function was given as many arguments as it takes; sets an exception if not. */
static int
is_count(const char *name, Py_ssize_t given, Py_ssize_t wanted)
{
    if (given != wanted) {
        PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments, not %zd", name, wanted, given);
    }
    return given == wanted;
}

/* The four bytes of a masking key; -1 with an exception set. */
static int
get_key(PyObject *object, unsigned char *key)
{
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(object, &bytes, &size) < 0) {
        return -1;
    }
    if (size != KEY) {
        PyErr_Format(PyExc_ValueError, "a masking key has 4 bytes, not %zd", size);
        return -1;
    }
    memcpy(key, bytes, KEY);
    return 0;
}

PyDoc_STRVAR(apply_mask_doc, "apply_mask(key, data, /)\n--\n\nSee _pure.py.");

static PyObject *
apply_mask(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    Py_buffer source;
    unsigned char key[KEY];
    if (!is_count("apply_mask", count, 2) || get_key(args[0], key) < 0
        || PyObject_GetBuffer(args[1], &source, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    PyObject *result = PyBytes_FromStringAndSize(NULL, source.len);
    if (result != NULL) {
        mask_releasing((unsigned char *)PyBytes_AsString(result), source.buf, source.len, key);
    }
    PyBuffer_Release(&source);
    return result;
}

/* RFC 6455 5.2, without a masking key; returns its size. */
static int
write_header(unsigned char *header, unsigned char first_byte, unsigned char mask_bit, uint64_t size)
{
    int extra = size < 126 ? 0 : size < 65536 ? 2 : 8;
    header[0] = first_byte;
    header[1] = mask_bit | (unsigned char)(extra == 0 ? size : extra == 2 ? 126 : 127);
    for (int at = 0; at < extra; at++) {
        header[2 + at] = (unsigned char)(size >> 8 * (extra - 1 - at));
    }
    return 2 + extra;
}

/* A payload's bytes: those of a str in ASCII where they are, which keeps no copy in it as UTF-8 of another would. */
static int
get_payload(PyObject *payload, Py_buffer *view)
{
    if (!PyUnicode_Check(payload)) {
        return PyObject_GetBuffer(payload, view, PyBUF_SIMPLE);
    }
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(payload, &size);
    return text == NULL ? -1 : PyBuffer_FillInfo(view, payload, (void *)text, size, 1, PyBUF_SIMPLE);
}

PyDoc_STRVAR(encode_frame_doc, "encode_frame(first_byte, payload, key, /)\n--\n\nSee _pure.py.");

static PyObject *
encode_frame(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    Py_buffer source;
    unsigned char key[KEY], header[LONGEST_HEADER];
    if (!is_count("encode_frame", count, 3)) {
        return NULL;
    }
    long first_byte = PyLong_AsLong(args[0]);
    if (first_byte < 0 || first_byte > 255) {
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_ValueError, "the first byte of a frame is not %ld", first_byte);
        }
        return NULL;
    }
    int is_masked = args[2] != Py_None;
    if ((is_masked && get_key(args[2], key) < 0) || get_payload(args[1], &source) < 0) {
        return NULL;
    }
    int size = write_header(header, (unsigned char)first_byte, is_masked ? 0x80 : 0, (uint64_t)source.len);
    if (is_masked) {
        memcpy(header + size, key, KEY);
        size += KEY;
    }
    PyObject *result =
        source.len > PY_SSIZE_T_MAX - size ? PyErr_NoMemory() : PyBytes_FromStringAndSize(NULL, size + source.len);
    if (result != NULL) {
        unsigned char *target = (unsigned char *)PyBytes_AsString(result);
        memcpy(target, header, (size_t)size);
        if (is_masked) {
            mask_releasing(target + size, source.buf, source.len, key);
        } else {
            memcpy(target + size, source.buf, (size_t)source.len);
        }
    }
    PyBuffer_Release(&source);
    return result;
}

/* What the view of a new payload is of: it keeps the bytes object alive as long as there is a view of it, a slice that
   an exception's traceback holds as well. */
typedef struct {
    PyObject_HEAD
    PyObject *payload;
} Memory;

static int
memory_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
    PyObject *payload = ((Memory *)self)->payload;
    return PyBuffer_FillInfo(view, self, PyBytes_AsString(payload), PyBytes_Size(payload), 0, flags);
}

static void
memory_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    Py_XDECREF(((Memory *)self)->payload);
    release(self);
    Py_DECREF(type);
}

static PyType_Slot memory_slots[] = {
    {Py_bf_getbuffer, memory_getbuffer},
    {Py_tp_dealloc, memory_dealloc},
    {0, NULL},
};

static PyType_Spec memory_spec = {
    "websocket._speedups.Memory", sizeof(Memory), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    memory_slots};

typedef struct {
    PyObject *memory_type;
} State;

PyDoc_STRVAR(new_payload_doc, "new_payload(size, /)\n--\n\nSee _pure.py.");

static PyObject *
new_payload(PyObject *module, PyObject *size_object)
{
    Py_ssize_t size = PyLong_AsSsize_t(size_object);
    if (size < 2) { /* shorter ones are shared by the whole interpreter */
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_ValueError, "a payload to be written needs at least 2 bytes, not %zd", size);
        }
        return NULL;
    }
    PyTypeObject *type = (PyTypeObject *)((State *)PyModule_GetState(module))->memory_type;
    PyObject *memory = PyType_GenericAlloc(type, 0), *view = NULL, *result = NULL;
    if (memory == NULL) {
        return NULL;
    }
    PyObject *payload = ((Memory *)memory)->payload = PyBytes_FromStringAndSize(NULL, size);
    if (payload != NULL && (view = PyMemoryView_FromObject(memory)) != NULL) {
        result = PyTuple_Pack(2, payload, view);
    }
    Py_XDECREF(view);
    Py_DECREF(memory);
    return result;
}

PyDoc_STRVAR(take_plain_frames_doc, "take_plain_frames(data, position, messages, most, /)\n--\n\nSee _pure.py.");

static PyObject *
take_plain_frames(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    Py_ssize_t end;
    char *bytes;
    if (!is_count("take_plain_frames", count, 4) || PyBytes_AsStringAndSize(args[0], &bytes, &end) < 0) {
        return NULL;
    }
    Py_ssize_t position = PyLong_AsSsize_t(args[1]), most = PyLong_AsSsize_t(args[3]);
    if (position < 0 || most < 0) {
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_ValueError, "position and most must not be negative: %zd, %zd", position, most);
        }
        return NULL;
    }
    if (!PyList_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError, "messages must be a list");
        return NULL;
    }
    const unsigned char *data = (const unsigned char *)bytes;
    while (end - position >= 2) {
        unsigned char first = data[position];
        Py_ssize_t size = data[position + 1], start = position + 2;
        if (size == 126 && end - start >= 2) {
            size = (Py_ssize_t)data[start] << 8 | data[start + 1];
            start += 2;
        } else if (size == 127 && end - start >= 8) {
            uint64_t announced = 0;
            for (int at = 0; at < 8; at++) {
                announced = announced << 8 | data[start + at];
            }
            start += 8;
            if (announced > (uint64_t)(end - start)) {
                break;
            }
            size = (Py_ssize_t)announced;
        } else if (size >= 126) {
            break;
        }
        if ((first != 0x81 && first != 0x82) || size > end - start || size > most) {
            break;
        }
        PyObject *message = first == 0x81 ? PyUnicode_DecodeUTF8(bytes + start, size, NULL)
                                          : PyBytes_FromStringAndSize(bytes + start, size);
        if (message == NULL) {
            return NULL;
        }
        int failed = PyList_Append(args[2], message);
        Py_DECREF(message);
        if (failed) {
            return NULL;
        }
        position = start + size;
    }
    return PyLong_FromSsize_t(position);
}

static PyMethodDef methods[] = {
    {"apply_mask", (PyCFunction)(void (*)(void))apply_mask, METH_FASTCALL, apply_mask_doc},
    {"encode_frame", (PyCFunction)(void (*)(void))encode_frame, METH_FASTCALL, encode_frame_doc},
    {"new_payload", new_payload, METH_O, new_payload_doc},
    {"take_plain_frames", (PyCFunction)(void (*)(void))take_plain_frames, METH_FASTCALL, take_plain_frames_doc},
    {NULL, NULL, 0, NULL},
};

static int
set_up(PyObject *module)
{
    State *state = PyModule_GetState(module);
    state->memory_type = PyType_FromModuleAndSpec(module, &memory_spec, NULL);
    return state->memory_type == NULL ? -1 : 0;
}

static int
traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    if (state != NULL) {
        Py_VISIT(state->memory_type);
    }
    return 0;
}

static int
clear(PyObject *module)
{
    State *state = PyModule_GetState(module);
    if (state != NULL) {
        Py_CLEAR(state->memory_type);
    }
    return 0;
}

static void
release(void *module)
{
    clear(module);
}

/* What versions of CPython want to know of a module. Each refuses slots that it does not know, and one build serves
   several, so that the running version chooses where the list begins. The numbers are of the stable ABI. */
static PyModuleDef_Slot slots[] = {
    {4, (void *)1}, /* 3.13: Py_mod_gil, Py_MOD_GIL_NOT_USED */
    {3, (void *)2}, /* 3.12: Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED */
    {Py_mod_exec, set_up},
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "websocket._speedups", NULL, sizeof(State), methods, NULL, traverse, clear, release};

#if PY_VERSION_HEX < 0x030B0000
#define RUNNING_VERSION PY_VERSION_HEX /* Py_Version came with 3.11; a build of 3.10 runs on no other */
#else
#define RUNNING_VERSION Py_Version
#endif

PyMODINIT_FUNC
PyInit__speedups(void)
{
    definition.m_slots = slots + (RUNNING_VERSION >= 0x030D0000 ? 0 : RUNNING_VERSION >= 0x030C0000 ? 1 : 2);
    return PyModuleDef_Init(&definition);
}
