"""Every address there is, but those of `web.tracks.middleware` for whoever runs the server."""

from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView
from rest_framework.routers import SimpleRouter

from web.tracks import views
from web.tracks.api import TokenView, TrackViewSet

router = SimpleRouter()
router.register("tracks", TrackViewSet, basename="api")

urlpatterns = [
    path("", views.home, name="home"),
    path("tracks/", views.history, name="history"),
    path("tracks/<slug:track_id>/", views.track, name="track"),
    path("tracks/<slug:track_id>/progress/", views.progress, name="progress"),
    path("tracks/<slug:track_id>/<str:what>/", views.change, name="change"),
    path("tracks/<slug:track_id>/files/<str:name>", views.file, name="file"),
    path("shared/<slug:link>/", views.shared, name="shared"),
    path("shared/<slug:link>/files/<str:name>", views.shared_file, name="shared-file"),
    path("about/", views.about, name="about"),
    path("language/", include("django.conf.urls.i18n")),
    path("api/v1/", include(router.urls)),
    path("api/v1/tracks/<slug:pk>/files/<str:name>", TrackViewSet.as_view({"get": "file"}), name="api-file"),
    path("api/v1/token/", TokenView.as_view(), name="token"),
    path("api/v1/schema/", SpectacularAPIView.as_view(), name="schema"),
]
handler400 = "web.tracks.views.bad_request"
handler404 = "web.tracks.views.not_found"
handler500 = "web.tracks.views.our_fault"
