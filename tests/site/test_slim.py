from papercode.site.slim import slim


def test_white_space_between_tags_shrinks_and_what_is_verbatim_stays():
    page = "<div>\n\n   <p>a\n   b</p>  \n</div><pre>x\n\n   y</pre>\n\n<script>\n\n  let a;\n</script>"
    assert slim(page) == "<div>\n<p>a\nb</p>\n</div><pre>x\n\n   y</pre>\n<script>\n\n  let a;\n</script>"


def test_marks_that_show_nothing_go_and_the_code_stays():
    code = (
        '<pre><code><span class="n">a</span><span class="w"> </span><span class="o">=</span> <span class="mi">1</span>'
    )
    assert slim(f"{code}</code></pre>") == (
        '<pre><code>a <span class="o">=</span> <span class="mi">1</span></code></pre>'
    )
    assert slim('<p><span class="n">kept</span></p>') == '<p><span class="n">kept</span></p>'
