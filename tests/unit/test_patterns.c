/* Patterns of exporters: each is found, gives what the separate nodes give, and leaves near misses alone. The separate
 * nodes come from the same graph with every intermediate value made an output. */
#include "engine/kernels/kernels.h"
#include "engine/onnx/import.h"
#include "engine/plan/fuse.h"
#include "engine/plan/patterns.h"
#include "tests/unit/model_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <math.h>

static struct qd_engine *engine;

/* A graph as text: "a=Op(x,0.5) name=value; y=Op(a)". Inputs are x (its shape in `in`) and z (the same); numbers are
 * scalar constants, with a trailing r of rank 1; g, h are vectors of the last dimension, g3 is g as [1, 1, n], w, k
 * weights, names with a leading i lists of ints: i2_3 is [2, 3]. The last value is the first output. */
struct graph {
    const char *label, *in, *text;
    const char *want; /* operators of the nodes that are left */
    const char *also; /* a further output, or NULL */
    unsigned opset;   /* 0: 17 */
};

#define LN_TAIL "q=Pow(d,2.0); v=ReduceMean(q) axes=[-1]; e=Add(v,0.00001); r=Sqrt(e); n=Div(d,r)"
#define LN      "m=ReduceMean(x) axes=[-1]; d=Sub(x,m); " LN_TAIL

static const struct graph graphs[] = {
    /* LayerNormalization */
    {.label = "LN", .in = "2,3,8", .text = LN "; s=Mul(n,g); y=Add(s,h)", .want = "LayerNormalization"},
    {.label = "LN, operands turned",
     .in = "2,3,8",
     .text = LN "; s=Mul(g,n); y=Add(h,s)",
     .want = "LayerNormalization"},
    {.label = "LN, no bias", .in = "2,3,8", .text = LN "; y=Mul(n,g)", .want = "LayerNormalization"},
    {.label = "LN, bare", .in = "2,3,8", .text = LN, .want = "LayerNormalization"},
    {.label = "LN, positive axis",
     .in = "2,3,8",
     .text = "m=ReduceMean(x) axes=[2]; d=Sub(x,m); q=Mul(d,d); v=ReduceMean(q) axes=[2]; e=Add(v,0.001); r=Sqrt(e); "
             "n=Div(d,r); "
             "s=Mul(n,g3); y=Add(s,h)",
     .want = "LayerNormalization"},
    {.label = "LN, two differences and casts",
     .in = "2,3,8",
     .text =
         "m=ReduceMean(x) axes=[-1]; d=Sub(x,m); f=Sub(x,m); c=Cast(f) to=1; q=Pow(c,2.0r); v=ReduceMean(q) axes=[-1]; "
         "e=Add(v,0.01r); r=Sqrt(e); n=Div(d,r); s=Mul(n,g); y=Add(s,h)",
     .want = "LayerNormalization"},
    {.label = "LN by reciprocals",
     .in = "2,3,8",
     .text = "m=ReduceMean(x) axes=[-1]; d=Sub(x,m); q=Mul(d,d); v=ReduceMean(q) axes=[-1]; e=Add(0.01,v); r=Sqrt(e); "
             "i=Reciprocal(r); t=Mul(i,g); s=Mul(d,t); y=Add(s,h)",
     .want = "LayerNormalization"},
    {.label = "LN, bias first",
     .in = "2,3,8",
     .text =
         "m=ReduceMean(x) axes=[-1]; d=Sub(x,m); q=Mul(d,d); v=ReduceMean(q) axes=[-1]; e=Add(0.01,v); r=Pow(e,-0.5); "
         "t=Mul(r,g); s=Mul(x,t); o=Mul(m,t); u=Sub(h,o); y=Add(s,u)",
     .want = "LayerNormalization"},
    {.label = "LN, axes as input",
     .in = "2,3,8",
     .text = "m=ReduceMean(x,i-1); d=Sub(x,m); q=Pow(d,2.0); v=ReduceMean(q,i-1); e=Add(v,0.1); r=Sqrt(e); n=Div(d,r); "
             "s=Mul(n,g); y=Add(s,h)",
     .want = "LayerNormalization",
     .opset = 18},
    {.label = "LN, another axis",
     .in = "2,8,8",
     .text = "m=ReduceMean(x) axes=[1]; d=Sub(x,m); q=Pow(d,2.0); v=ReduceMean(q) axes=[1]; e=Add(v,0.1); r=Sqrt(e); "
             "n=Div(d,r)",
     .want = "ReduceMean Sub Pow ReduceMean Add Sqrt Div"},
    {.label = "LN, two axes",
     .in = "2,3,8",
     .text = "m=ReduceMean(x) axes=[1,2]; d=Sub(x,m); " LN_TAIL,
     .want = "ReduceMean Sub RMSNormalization"},
    {.label = "LN, cubes",
     .in = "2,3,8",
     .text = "m=ReduceMean(x) axes=[-1]; d=Sub(x,m); q=Pow(d,4.0); v=ReduceMean(q) axes=[-1]; e=Add(v,0.1); r=Sqrt(e); "
             "n=Div(d,r)",
     .want = "ReduceMean Sub Pow ReduceMean Add Sqrt Div"},
    {.label = "LN, another mean",
     .in = "2,3,8",
     .text = "m=ReduceMean(z) axes=[-1]; d=Sub(x,m); " LN_TAIL,
     .want = "ReduceMean Sub RMSNormalization"},
    {.label = "LN, variance given out",
     .in = "2,3,8",
     .text = LN,
     .want = "ReduceMean Sub Pow ReduceMean Add Sqrt Div",
     .also = "v"},
    {.label = "LN, mean given out", .in = "2,3,8", .text = LN, .want = "ReduceMean Sub RMSNormalization", .also = "m"},
    {.label = "LN, read twice",
     .in = "2,3,8",
     .text = LN "; s=Mul(n,g); t=Add(s,h); y=Add(t,r)",
     .want = "ReduceMean Sub Pow ReduceMean Add Sqrt Div Mul Add Add"},
    {.label = "LN, scale along rows", .in = "2,3,8", .text = LN "; y=Mul(n,column)", .want = "LayerNormalization Mul"},
    /* RMSNormalization */
    {.label = "RMS",
     .in = "2,3,8",
     .text = "q=Pow(x,2.0); v=ReduceMean(q) axes=[-1]; e=Add(v,0.00001); r=Sqrt(e); i=Reciprocal(r); n=Mul(x,i); "
             "y=Mul(g,n)",
     .want = "RMSNormalization"},
    {.label = "RMS by 1 / root",
     .in = "2,3,8",
     .text = "q=Mul(x,x); v=ReduceMean(q) axes=[-1]; e=Add(v,0.00001); r=Sqrt(e); i=Div(1.0,r); n=Mul(x,i)",
     .want = "RMSNormalization"},
    {.label = "RMS, gain first",
     .in = "2,3,8",
     .text = "q=Mul(x,x); v=ReduceMean(q) axes=[-1]; e=Add(v,0.00001); r=Pow(e,-0.5); i=Mul(r,g); n=Mul(x,i)",
     .want = "RMSNormalization"},
    {.label = "RMS of another",
     .in = "2,3,8",
     .text = "q=Mul(z,z); v=ReduceMean(q) axes=[-1]; e=Add(v,0.00001); r=Sqrt(e); n=Div(x,r)",
     .want = "Mul ReduceMean Add Sqrt Div"},
    {.label = "RMS, not kept",
     .in = "3,3,3",
     .text = "q=Mul(x,x); v=ReduceMean(q) axes=[-1] keepdims=0; e=Add(v,0.00001); r=Sqrt(e); n=Div(x,r)",
     .want = "Mul ReduceMean Add Sqrt Div"},
    /* Gelu */
    {.label = "Gelu",
     .in = "2,8",
     .text = "d=Div(x,1.41421354); e=Erf(d); f=Add(e,1.0); m=Mul(x,f); y=Mul(m,0.5)",
     .want = "Gelu"},
    {.label = "Gelu, half first",
     .in = "2,8",
     .text = "d=Mul(x,0.70710677); e=Erf(d); f=Add(1.0,e); m=Mul(0.5,x); y=Mul(m,f)",
     .want = "Gelu"},
    {.label = "Gelu, half of erf",
     .in = "2,8",
     .text = "d=Mul(0.70710677r,x); e=Erf(d); f=Add(1.0,e); m=Mul(0.5,f); y=Mul(m,x)",
     .want = "Gelu"},
    {.label = "Gelu, half and half",
     .in = "2,8",
     .text = "d=Div(x,1.41421354); e=Erf(d); f=Mul(0.5,e); m=Add(f,0.5); y=Mul(x,m)",
     .want = "Gelu"},
    {.label = "Gelu, by two",
     .in = "2,8",
     .text = "d=Div(x,1.41421354); e=Erf(d); f=Add(e,1.0); m=Mul(x,f); y=Div(m,2.0)",
     .want = "Gelu"},
    {.label = "Gelu, another factor",
     .in = "2,8",
     .text = "d=Div(x,1.5); e=Erf(d); f=Add(e,1.0); m=Mul(x,f); y=Mul(m,0.5)",
     .want = "Div Erf Add Mul Mul"},
    {.label = "Gelu of two",
     .in = "2,8",
     .text = "d=Div(z,1.41421354); e=Erf(d); f=Add(e,1.0); m=Mul(x,f); y=Mul(m,0.5)",
     .want = "Div Erf Add Mul Mul"},
    {.label = "Gelu, rank raised",
     .in = "8",
     .text = "d=Div(x,1.41421354); e=Erf(d); f=Add(e,1.0rr); m=Mul(x,f); y=Mul(m,0.5)",
     .want = "Div Erf Add Mul Mul"},
    {.label = "Gelu, given out",
     .in = "2,8",
     .text = "d=Div(x,1.41421354); e=Erf(d); f=Add(e,1.0); m=Mul(x,f); y=Mul(m,0.5)",
     .want = "Div Erf Add Mul Mul",
     .also = "e"},
    {.label = "Gelu by tanh",
     .in = "2,8",
     .text = "p=Pow(x,3.0); a=Mul(p,0.044715); s=Add(x,a); t=Mul(s,0.7978845608); u=Tanh(t); v=Add(u,1.0); m=Mul(x,v); "
             "y=Mul(m,0.5)",
     .want = "Gelu"},
    {.label = "Gelu by tanh, products",
     .in = "2,8",
     .text = "a=Mul(0.044715,x); b=Mul(x,a); c=Mul(x,b); s=Add(x,c); t=Mul(0.7978845608,s); u=Tanh(t); v=Add(1.0,u); "
             "m=Mul(0.5,v); "
             "y=Mul(x,m)",
     .want = "Gelu"},
    {.label = "Gelu by tanh, factored",
     .in = "2,8",
     .text = "q=Mul(x,x); a=Mul(q,0.044715); b=Add(1.0,a); c=Mul(x,0.7978845608); t=Mul(c,b); u=Tanh(t); v=Add(u,1.0); "
             "o=Mul(x,0.5); "
             "y=Mul(o,v)",
     .want = "Gelu"},
    {.label = "Gelu by tanh, another number",
     .in = "2,8",
     .text = "p=Pow(x,3.0); a=Mul(p,0.05); s=Add(x,a); t=Mul(s,0.7978845608); u=Tanh(t); v=Add(u,1.0); m=Mul(x,v); "
             "y=Mul(m,0.5)",
     .want = "Pow Mul Add Mul Tanh Add Mul Mul"},
    /* gates */
    {.label = "SiLU", .in = "2,8", .text = "s=Sigmoid(x); y=Mul(x,s)", .want = "Swish"},
    {.label = "SiLU, times one", .in = "2,8", .text = "a=Mul(x,1.0r); s=Sigmoid(a); y=Mul(s,x)", .want = "Swish"},
    {.label = "quick GELU", .in = "2,8", .text = "a=Mul(x,1.702); s=Sigmoid(a); y=Mul(x,s)", .want = "Swish"},
    {.label = "gate of another", .in = "2,8", .text = "s=Sigmoid(z); y=Mul(x,s)", .want = "Sigmoid Mul"},
    {.label = "gate read twice",
     .in = "2,8",
     .text = "s=Sigmoid(x); m=Mul(x,s); y=Add(m,s)",
     .want = "Sigmoid Mul Add"},
    {.label = "Mish", .in = "2,8", .text = "s=Softplus(x); t=Tanh(s); y=Mul(x,t)", .want = "Mish"},
    {.label = "HardSwish",
     .in = "2,8",
     .text = "a=Add(x,3.0r); c=Clip(a,0.0,6.0); m=Mul(x,c); y=Div(m,6.0r)",
     .want = "HardSwish"},
    {.label = "HardSwish, sixth of the gate",
     .in = "2,8",
     .text = "a=Add(3.0,x); c=Clip(a,0.0,6.0); m=Mul(c,0.16666667); y=Mul(m,x)",
     .want = "HardSwish"},
    {.label = "HardSwish by Relu and Min",
     .in = "2,8",
     .text = "a=Add(x,3.0); b=Relu(a); c=Min(b,6.0); m=Mul(x,0.16666667); y=Mul(m,c)",
     .want = "HardSwish"},
    {.label = "HardSwish by HardSigmoid",
     .in = "2,8",
     .text = "a=HardSigmoid(x) alpha=0.16666667 beta=0.5; y=Mul(x,a)",
     .want = "HardSwish"},
    {.label = "HardSwish of a slope of a fifth",
     .in = "2,8",
     .text = "a=HardSigmoid(x) alpha=0.2 beta=0.5; y=Mul(x,a)",
     .want = "HardSigmoid Mul"},
    {.label = "HardSwish to five",
     .in = "2,8",
     .text = "a=Add(x,3.0); c=Clip(a,0.0,5.0); m=Mul(x,c); y=Div(m,6.0)",
     .want = "Add Clip Mul Div"},
    {.label = "HardSwish, opset 10",
     .in = "2,8",
     .text = "a=Add(x,3.0); c=Clip(a) min=0.0 max=6.0; m=Mul(x,c); y=Div(m,6.0)",
     .want = "HardSwish",
     .opset = 10},
    {.label = "HardSigmoid",
     .in = "2,8",
     .text = "a=Add(x,3.0); c=Clip(a,0.0,6.0); y=Div(c,6.0)",
     .want = "HardSigmoid"},
    {.label = "HardSigmoid, slope and offset",
     .in = "2,8",
     .text = "m=Mul(x,0.25); a=Add(m,0.4); y=Clip(a,0.0,1.0)",
     .want = "HardSigmoid"},
    {.label = "HardSigmoid, to two",
     .in = "2,8",
     .text = "m=Mul(x,0.25); a=Add(m,0.4); y=Clip(a,0.0,2.0)",
     .want = "Mul Add Clip"},
    {.label = "Softmax",
     .in = "2,8",
     .text = "m=ReduceMax(x) axes=[-1]; d=Sub(x,m); e=Exp(d); s=ReduceSum(e,i-1); y=Div(e,s)",
     .want = "Softmax"},
    {.label = "Softmax, another axis",
     .in = "4,8",
     .text = "m=ReduceMax(x) axes=[-1]; d=Sub(x,m); e=Exp(d); s=ReduceSum(e,i0); y=Div(e,s)",
     .want = "ReduceMax Sub Exp ReduceSum Div"},
    {.label = "Min of Max", .in = "2,8", .text = "a=Max(x,-0.5); y=Min(a,0.75)", .want = "Clip"},
    {.label = "Max with zero", .in = "2,8", .text = "y=Max(0.0,x)", .want = "Relu"},
    /* what changes nothing */
    {.label = "Identity", .in = "2,8", .text = "a=Identity(x); b=Relu(a); y=Identity(b)", .want = "Relu"},
    {.label = "Identity given out",
     .in = "2,8",
     .text = "a=Relu(x); y=Identity(a)",
     .want = "Relu Identity",
     .also = "a"},
    {.label = "Dropout", .in = "2,8", .text = "a=Relu(x); b=Dropout(a); y=Tanh(b)", .want = "Relu Tanh"},
    {.label = "Cast to the same", .in = "2,8", .text = "a=Relu(x); b=Cast(a) to=1; y=Tanh(b)", .want = "Relu Tanh"},
    {.label = "Cast and back",
     .in = "2,8",
     .text = "a=Relu(x); b=Cast(a) to=7; c=Cast(b) to=1; y=Tanh(c)",
     .want = "Relu Cast Cast Tanh"},
    {.label = "neutral numbers",
     .in = "2,8",
     .text = "a=Mul(x,1.0); b=Add(0.0,a); c=Div(b,1.0r); d=Sub(c,0.0); y=Tanh(d)",
     .want = "Tanh"},
    {.label = "not so neutral", .in = "8", .text = "a=Mul(x,1.0rr); y=Tanh(a)", .want = "Mul Tanh"},
    {.label = "one minus", .in = "2,8", .text = "a=Sub(0.0,x); y=Tanh(a)", .want = "Sub Tanh"},
    {.label = "Slice of all",
     .in = "2,8",
     .text = "a=Slice(x,i0_0,i2147483647_2147483647,i0_1); y=Tanh(a)",
     .want = "Tanh"},
    {.label = "Slice from one",
     .in = "2,8",
     .text = "a=Slice(x,i0_1,i2147483647_2147483647,i0_1); y=Tanh(a)",
     .want = "Slice Tanh"},
    {.label = "Transpose back",
     .in = "2,3,4",
     .text = "a=Transpose(x) perm=[2,0,1]; b=Transpose(a) perm=[1,2,0]; y=Tanh(b)",
     .want = "Tanh"},
    {.label = "Transpose twice",
     .in = "2,3,4",
     .text = "a=Transpose(x) perm=[2,0,1]; b=Transpose(a) perm=[2,0,1]; y=Tanh(b)",
     .want = "Transpose Tanh"},
    {.label = "Transpose of nothing", .in = "2,3,4", .text = "a=Transpose(x) perm=[0,1,2]; y=Tanh(a)", .want = "Tanh"},
    {.label = "Reshape twice",
     .in = "2,3,4",
     .text = "a=Reshape(x,i4_6); b=Reshape(a,i-1_3); y=Tanh(b)",
     .want = "Reshape Tanh"},
    {.label = "Reshape that copies",
     .in = "2,3,4",
     .text = "a=Reshape(x,i4_6); b=Reshape(a,i0_-1_2); y=Tanh(b)",
     .want = "Reshape Reshape Tanh"},
    {.label = "Unsqueeze and back",
     .in = "2,3,4",
     .text = "a=Unsqueeze(x,i1); b=Squeeze(a,i1); y=Tanh(b)",
     .want = "Tanh"},
    {.label = "Squeeze and elsewhere",
     .in = "2,1,4",
     .text = "a=Squeeze(x,i1); b=Unsqueeze(a,i0); y=Tanh(b)",
     .want = "Squeeze Unsqueeze Tanh"},
    {.label = "one-hot product",
     .in = "2,3,1",
     .text = "t=Mul(x,9.0); c=Cast(t) to=7; e=Equal(c,i0_1_2_3_4_5_6_7); o=Cast(e) to=1; y=MatMul(o,w)",
     .want = "Mul Cast OneHotMatMul"},
    {.label = "one-hot product, from the other side, of numbers below zero",
     .in = "2,3,1",
     .text = "t=Mul(x,9.0); c=Cast(t) to=7; e=Equal(i-4_-3_-2_-1_0_1_2_3,c); o=Cast(e) to=1; y=MatMul(o,w)",
     .want = "Mul Cast OneHotMatMul"},
    {.label = "one-hot product, each with its own number",
     .in = "2,3,8",
     .text = "t=Mul(x,2.0); c=Cast(t) to=7; e=Equal(c,i0_1_2_3_4_5_6_7); o=Cast(e) to=1; y=MatMul(o,w)",
     .want = "Mul Cast OneHotMatMul"},
    {.label = "one-hot product of other numbers",
     .in = "2,3,1",
     .text = "t=Mul(x,9.0); c=Cast(t) to=7; e=Equal(c,i0_1_2_3_4_5_7_6); o=Cast(e) to=1; y=MatMul(o,w)",
     .want = "Mul Cast Equal Cast MatMul"},
    {.label = "MatMul between",
     .in = "3,8",
     .text = "a=Unsqueeze(x,i0); b=MatMul(a,w); y=Squeeze(b,i0)",
     .want = "MatMul"},
    {.label = "MatMul between others",
     .in = "1,8",
     .text = "a=Unsqueeze(x,i0); b=MatMul(a,w); y=Squeeze(b,i1)",
     .want = "Unsqueeze MatMul Squeeze"},
    {.label = "Clip of Relu", .in = "2,8", .text = "a=Relu(x); b=Clip(a,-1.0,0.75); y=Tanh(b)", .want = "Clip Tanh"},
    {.label = "Clip of a Clip that leaves nothing",
     .in = "2,8",
     .text = "a=Clip(x,-1.0,-0.5); b=Relu(a); y=Tanh(b)",
     .want = "Clip Relu Tanh"},
    {.label = "Relu read twice",
     .in = "2,8",
     .text = "a=Relu(x); b=Clip(a,-1.0,0.75); y=Add(a,b)",
     .want = "Relu Clip Add"},
    /* work done on the way */
    {.label = "Pad", .in = "1,3,6,5", .text = "p=Pad(x,i0_0_1_2_0_0_0_1); y=Conv(p,k)", .want = "Conv"},
    {.label = "Pad with a zero",
     .in = "1,3,6,5",
     .text = "p=Pad(x,i0_0_1_2_0_0_0_1,0.0); y=Conv(p,k) pads=[1,0,1,2]",
     .want = "Conv"},
    {.label = "Pad before valid",
     .in = "1,3,6,5",
     .text = "p=Pad(x,i0_0_1_2_0_0_0_1,0.0); y=Conv(p,k) auto_pad=VALID",
     .want = "Conv"},
    {.label = "Pad of opset 10",
     .in = "1,3,6,5",
     .text = "p=Pad(x) pads=[0,0,1,2,0,0,0,1]; y=Conv(p,k)",
     .want = "Conv",
     .opset = 10},
    {.label = "Pad with ones",
     .in = "1,3,6,5",
     .text = "p=Pad(x,i0_0_1_2_0_0_0_1,1.0); y=Conv(p,k)",
     .want = "Pad Conv"},
    {.label = "Pad of channels", .in = "1,2,6,5", .text = "p=Pad(x,i0_1_1_2_0_0_0_1); y=Conv(p,k)", .want = "Pad Conv"},
    {.label = "Pad that cuts", .in = "1,3,6,5", .text = "p=Pad(x,i0_0_1_-1_0_0_0_1); y=Conv(p,k)", .want = "Pad Conv"},
    {.label = "Pad by reflection",
     .in = "1,3,6,5",
     .text = "p=Pad(x,i0_0_1_1_0_0_1_1) mode=reflect; y=Conv(p,k)",
     .want = "Pad Conv"},
    {.label = "Pad given out",
     .in = "1,3,6,5",
     .text = "p=Pad(x,i0_0_1_2_0_0_0_1); y=Conv(p,k)",
     .want = "Pad Conv",
     .also = "p"},
    {.label = "Pad before the same",
     .in = "1,3,6,5",
     .text = "p=Pad(x,i0_0_1_2_0_0_0_1); y=Conv(p,k) auto_pad=SAME_UPPER",
     .want = "Pad Conv"},
    {.label = "mean of a picture", .in = "2,3,6,5", .text = "y=ReduceMean(x) axes=[2,3]", .want = "GlobalAveragePool"},
    {.label = "mean of a picture, gone",
     .in = "2,3,6,5",
     .text = "a=ReduceMean(x) axes=[-1,2] keepdims=0; y=Tanh(a)",
     .want = "GlobalAveragePool Flatten Tanh"},
    {.label = "mean of columns", .in = "2,3,6,5", .text = "y=ReduceMean(x) axes=[1,3]", .want = "ReduceMean"},
    {.label = "mean of rank 3", .in = "3,6,5", .text = "y=ReduceMean(x) axes=[1,2]", .want = "ReduceMean"},
    {.label = "read by nobody", .in = "2,8", .text = "y=Tanh(x); a=Relu(x); b=Exp(a)", .want = "Relu Exp"},
};

static bool is_number(const char *name) { return strchr("0123456789-", name[0]) != NULL; }

static void add_constant(struct qd_mb *b, const char *name, const char *in)
{
    int64_t ints[8];
    char shape[16];
    int count = 0;
    const char *last = strrchr(in, ',');
    last = last ? last + 1 : in;
    if (is_number(name)) {
        float value = strtof(name, NULL);
        size_t n = strlen(name);
        qd_mb_constant(b, name, QD_F32, name[n - 1] != 'r' ? "" : name[n - 2] != 'r' ? "1" : "1,1", &value);
    } else if (name[0] == 'i' && name[1]) {
        for (const char *p = name + 1; *p; p += *p == '_')
            ints[count++] = strtoll(p, (char **)(uintptr_t)&p, 10);
        snprintf(shape, sizeof shape, "%d", count);
        qd_mb_constant(b, name, QD_I64, shape, ints);
    } else if (strcmp(name, "g3") == 0) {
        snprintf(shape, sizeof shape, "1,1,%s", last);
        qd_mb_weights(b, name, shape, 5, 1);
    } else if (strcmp(name, "g") == 0 || strcmp(name, "h") == 0) {
        qd_mb_weights(b, name, last, (uint64_t)name[0], 1);
    } else if (strcmp(name, "column") == 0) {
        qd_mb_weights(b, name, "3,1", 7, 1);
    } else if (strcmp(name, "w") == 0) {
        qd_mb_weights(b, name, "8,4", 9, 1);
    } else if (strcmp(name, "k") == 0) {
        qd_mb_weights(b, name, "4,3,3,3", 11, 1);
    }
}

/* Adds what a statement "a=Op(x,y) attributes" says; its value's name to `value`. */
static void add_node(struct qd_mb *b, const char *statement, const char *in, char *made, char value[32])
{
    char op[32], inputs[96], name[40], attributes[96] = "";
    int taken = 0;
    assert_true(sscanf(statement, " %31[^=]=%31[^(](%95[^)])%n", value, op, inputs, &taken) == 3 && taken > 0);
    snprintf(attributes, sizeof attributes, "%s", statement[taken] ? statement + taken + 1 : "");
    for (char *p = inputs; *p; p++)
        *p = *p == ',' ? ' ' : *p;
    for (char *p = inputs, *end; *p; p = end + (*end == ' ')) {
        end = p + strcspn(p, " ");
        snprintf(name, sizeof name, "<%.*s>", (int)(end - p), p);
        if (strstr(made, name))
            continue;
        strcat(made, name);
        name[strlen(name) - 1] = 0;
        add_constant(b, name + 1, in);
    }
    qd_mb_node(b, op, inputs, value, attributes[0] ? attributes : NULL);
    snprintf(name, sizeof name, "<%.36s>", value);
    strcat(made, name);
}

static struct qd_mb build(const struct graph *g, bool all)
{
    struct qd_mb b = {0};
    char made[2048] = "<x><z>", statement[160], values[16][32];
    int count = 0;
    qd_mb_input(&b, "x", QD_F32, g->in);
    if (strstr(g->text, "(z") || strstr(g->text, ",z"))
        qd_mb_input(&b, "z", QD_F32, g->in);
    for (const char *p = g->text; *p; count++) {
        size_t n = strcspn(p, ";");
        snprintf(statement, sizeof statement, "%.*s", (int)n, p);
        add_node(&b, statement, g->in, made, values[count]);
        p += n + (p[n] == ';');
    }
    qd_mb_output(&b, values[count - 1], QD_F32, "");
    if (g->also && !all)
        qd_mb_output(&b, g->also, QD_F32, "");
    for (int i = 0; all && i < count - 1; i++)
        qd_mb_output(&b, values[i], strstr(values[i], "int") ? QD_I64 : QD_F32, "");
    qd_mb_finish(&b, g->opset ? g->opset : 17);
    return b;
}

/* Output 0 and the operators of the steps. */
static void serially(struct qd_parallel *parallel, size_t tasks, void (*fn)(void *ctx, size_t task), void *ctx)
{
    (void)parallel;
    for (size_t i = 0; i < tasks; i++)
        fn(ctx, i);
}

/* Operators of the nodes that folding and the patterns leave: what later passes make of them is not looked at. */
static void list_nodes(const struct qd_mb *b, char *text, size_t room)
{
    struct qd_parallel parallel = {1, serially};
    const struct qd_kernels *kernels;
    struct qd_graph *graph;
    struct qd_arena *arena;
    struct qd_error error;
    size_t used = 0;
    assert_int_equal(qd_kernels_get(&kernels, &error), QD_OK);
    assert_int_equal(qd_onnx_import(b->model.bytes, b->model.size, &graph, &error), QD_OK);
    assert_int_equal(qd_arena_create(4096, &arena), QD_OK);
    assert_int_equal(qd_fold_constants(graph, arena, kernels, &parallel, 1 << 20, NULL, &error), QD_OK);
    assert_int_equal(qd_find_patterns(graph, arena, &error), QD_OK);
    text[0] = 0;
    for (int n = 0; n < graph->node_count; n++)
        used += (size_t)snprintf(text + used, room - used, "%s%s", used ? " " : "", graph->nodes[n].op);
    qd_arena_destroy(&arena);
    qd_graph_destroy(&graph);
}

static size_t answer(const struct graph *g, bool all, float *out, size_t room, char *steps, size_t steps_room)
{
    struct qd_quant_options options = qd_quant_defaults();
    struct qd_infer_options infer_options = qd_infer_defaults();
    struct qd_error error = {0};
    struct qd_infer *infer;
    struct qd_mb b = build(g, all);
    options.precision = QD_FP32;
    struct qd_model *model = qd_mb_load(&b, engine, &options, &error);
    if (!model)
        fail_msg("%s: %s", g->label, error.text);
    struct qd_shape shape = qd_mb_shape(g->in);
    assert_int_equal(qd_infer_create(model, &infer_options, &infer, &error), QD_OK);
    for (size_t i = 0; i < (strstr(g->text, "(z") || strstr(g->text, ",z") ? 2u : 1u); i++) {
        void *data;
        int64_t elems = 0;
        assert_int_equal(qd_infer_input_alloc(infer, i, QD_F32, &shape, &data, &error), QD_OK);
        assert_true(qd_shape_elems(&shape, &elems));
        qd_mb_fill(data, (size_t)elems, 42 + i, 4);
    }
    if (qd_infer_prepare(infer, &error))
        fail_msg("%s: %s", g->label, error.text);
    qd_infer_run(&infer, 1);
    if (qd_infer_status(infer, &error))
        fail_msg("%s: %s", g->label, error.text);
    qd_infer_finish(infer);
    const struct qd_tensor *t = qd_infer_output(infer, 0);
    size_t n = (size_t)qd_tensor_elems(t);
    assert_true(n <= room);
    memcpy(out, t->data, n * sizeof *out);
    list_nodes(&b, steps, steps_room);
    qd_infer_destroy(&infer);
    qd_model_unref(&model);
    qd_mb_free(&b);
    return n;
}

static void test_graphs(void **state)
{
    (void)state;
    static float got[4096], want[4096];
    int wrong = 0;
    for (size_t i = 0; i < sizeof graphs / sizeof graphs[0]; i++) {
        const struct graph *g = &graphs[i];
        char steps[256], separate[256];
        size_t n = answer(g, false, got, 4096, steps, sizeof steps);
        size_t m = answer(g, true, want, 4096, separate, sizeof separate);
        if (strcmp(steps, g->want) != 0 || n != m) {
            print_error("%s: steps '%s', want '%s'; %zu and %zu elements\n", g->label, steps, g->want, n, m);
            wrong++;
        }
        for (size_t e = 0; e < n && n == m; e++)
            if (!(fabsf(got[e] - want[e]) <= 4e-6f * (1 + fabsf(want[e]) * 4))) {
                print_error("%s: element %zu is %.9g, separate nodes give %.9g\n", g->label, e, (double)got[e],
                            (double)want[e]);
                wrong++;
                break;
            }
    }
    assert_int_equal(wrong, 0);
}

static int setup(void **state)
{
    (void)state;
    engine = qd_mb_engine(1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    qd_engine_destroy(&engine);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_graphs)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
