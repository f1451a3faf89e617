"""Rebuilding TIR statements and expressions in Python, where upstream offers no visitor."""

from __future__ import annotations

from collections.abc import Callable

from tvm import ir, s_tir, tirx

__all__ = ["rewrite", "rewrite_leaves"]


def rewrite(expression: ir.Expr, replace: Callable[[ir.Expr], ir.Expr | None]) -> ir.Expr:
    """Rebuild `expression`, with `replace(node)` in the place of each node for which that is not None."""
    replacement = replace(expression)
    if replacement is not None:
        return replacement

    def again(node: ir.Expr) -> ir.Expr:
        return rewrite(node, replace)

    if isinstance(expression, ir.TensorLoad):
        return tirx.BufferLoad(expression.source, [again(i) for i in expression.indices])
    if isinstance(expression, ir.Call):
        arguments = [again(a) for a in expression.args]
        return ir.Call(expression.op, arguments, expression.attrs, ret_ty=expression.ty)
    if isinstance(expression, tirx.Select):
        return tirx.Select(
            again(expression.condition), again(expression.true_value), again(expression.false_value)
        )
    if isinstance(expression, tirx.Broadcast):
        return tirx.Broadcast(again(expression.value), expression.lanes)
    if isinstance(expression, tirx.Cast):
        return tirx.Cast(expression.ty, again(expression.value))
    if isinstance(expression, tirx.Let):
        return tirx.Let(expression.var, again(expression.value), again(expression.body))
    if isinstance(expression, tirx.Not):
        return tirx.Not(again(expression.a))
    if hasattr(expression, "a") and hasattr(expression, "b"):
        return type(expression)(again(expression.a), again(expression.b))
    return expression


def rewrite_leaves(stmt: tirx.Stmt, replace: Callable[[tirx.Stmt], tirx.Stmt]) -> tirx.Stmt:
    """Rebuild `stmt` with `replace` applied to the statements that hold no others."""

    def again(inner: tirx.Stmt) -> tirx.Stmt:
        return rewrite_leaves(inner, replace)

    if isinstance(stmt, tirx.SeqStmt):
        return tirx.SeqStmt([again(s) for s in stmt.seq])
    if isinstance(stmt, tirx.For):
        body = again(stmt.body)
        return tirx.For(
            stmt.loop_var,
            stmt.min,
            stmt.extent,
            stmt.kind,
            body,
            stmt.thread_binding,
            stmt.annotations,
            stmt.step,
        )
    if isinstance(stmt, tirx.AttrStmt):
        return tirx.AttrStmt(stmt.node, stmt.attr_key, stmt.value, again(stmt.body))
    if isinstance(stmt, tirx.IfThenElse):
        otherwise = None if stmt.else_case is None else again(stmt.else_case)
        return tirx.IfThenElse(stmt.condition, again(stmt.then_case), otherwise)
    if isinstance(stmt, s_tir.SBlockRealize):
        b = stmt.block
        init = None if b.init is None else again(b.init)
        block = s_tir.SBlock(
            b.iter_vars,
            b.reads,
            b.writes,
            b.name_hint,
            again(b.body),
            init,
            b.alloc_buffers,
            b.match_buffers,
            b.annotations,
        )
        return s_tir.SBlockRealize(stmt.iter_values, stmt.predicate, block)
    return replace(stmt)
