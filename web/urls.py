"""Every address there is, but for those of `web.tracks.middleware.OPERATIONS`."""

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
    path("tracks/<str:track_id>/", views.track, name="track"),
    path("tracks/<str:track_id>/progress/", views.progress, name="progress"),
    path("tracks/<str:track_id>/<str:what>/", views.change, name="change"),
    path("tracks/<str:track_id>/files/<str:name>", views.file, name="file"),
    path("shared/<str:link>/", views.shared, name="shared"),
    path("shared/<str:link>/files/<str:name>", views.shared_file, name="shared-file"),
    path("about/", views.about, name="about"),
    path("language/", include("django.conf.urls.i18n")),
    path("api/v1/", include(router.urls)),
    path("api/v1/tracks/<str:pk>/files/<str:name>", TrackViewSet.as_view({"get": "file"}), name="api-file"),
    path("api/v1/token/", TokenView.as_view(), name="token"),
    path("api/v1/schema/", SpectacularAPIView.as_view(), name="schema"),
]
handler404 = "web.tracks.views.not_found"
handler500 = "web.tracks.views.our_fault"
